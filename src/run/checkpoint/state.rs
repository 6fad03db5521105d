//! `trainer.json`: the position of a run, and enough of its identity to notice a checkpoint of another run.

use serde::{Deserialize, Serialize};

use crate::config::PatchSize;
use crate::run::ModelOutline;

/// The position of a run. Equal runs give equal bytes: it holds no time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of this file: 1 has no `model`, `tokenizer` and `data_order`.
    pub format_version: u32,
    /// Completed updates.
    pub step: u64,
    /// Stage of the last completed update, counted from 0.
    pub stage: usize,
    /// Completed updates of that stage.
    pub stage_step: u64,
    /// K of that stage.
    pub patch_size: PatchSize,
    /// Updates since the moments were zero.
    pub optimizer_count: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Where the next update begins in the order of the data, in tokens.
    pub data_position: u64,
    /// The same as passes begun, block of the pass and tokens into the block.
    pub cursor: [u64; 3],
    /// Seed of initial weights and data order.
    pub seed: u64,
    /// Fingerprint of the token stream.
    pub data_fingerprint: String,
    /// Whether everything that was due after the last update was measured; a stop may have come in between.
    #[serde(alias = "has_looked")]
    pub has_measured: bool,
    /// Sizes of the network.
    #[serde(default)]
    pub model: Option<ModelOutline>,
    /// Hash of the tokenizer.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// How the token stream is cut and ordered.
    #[serde(default)]
    pub data_order: Option<DataOrder>,
}

/// How a token stream is cut into blocks and in which order they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOrder {
    /// Tokens of a block.
    pub block_tokens: u64,
    /// Blocks of one pass.
    pub blocks_per_epoch: u64,
    /// Whether the blocks are shuffled in each pass.
    pub shuffle: bool,
}

/// A value of a checkpoint that contradicts the run's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the value.
    pub what: &'static str,
    /// Value in the checkpoint.
    pub found: String,
    /// Value according to configuration and text.
    pub expected: String,
}

impl TrainerState {
    /// Version of the files that are written today.
    pub const FORMAT_VERSION: u32 = 2;

    /// What differs from `expected`, the state that the plan has after the same number of updates.
    ///
    /// Values that an older format lacks are not compared, and neither is `has_measured`.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut compare = |what: &'static str, own: String, expected: String| {
            if own != expected {
                found.push(Difference { what, found: own, expected });
            }
        };
        compare("seed", self.seed.to_string(), expected.seed.to_string());
        compare("step", self.step.to_string(), expected.step.to_string());
        compare("stage", self.stage.to_string(), expected.stage.to_string());
        compare("stage_step", self.stage_step.to_string(), expected.stage_step.to_string());
        compare("patch_size", self.patch_size.to_string(), expected.patch_size.to_string());
        compare("optimizer_count", self.optimizer_count.to_string(), expected.optimizer_count.to_string());
        compare("tokens", self.tokens.to_string(), expected.tokens.to_string());
        compare("data_fingerprint", self.data_fingerprint.clone(), expected.data_fingerprint.clone());
        compare("data_position", self.data_position.to_string(), expected.data_position.to_string());
        compare("cursor", format!("{:?}", self.cursor), format!("{:?}", expected.cursor));
        if let (Some(own), Some(expected)) = (&self.model, &expected.model) {
            compare("model", format!("{own:?}"), format!("{expected:?}"));
        }
        if let (Some(own), Some(expected)) = (&self.tokenizer, &expected.tokenizer) {
            compare("tokenizer", own.clone(), expected.clone());
        }
        if let (Some(own), Some(expected)) = (&self.data_order, &expected.data_order) {
            compare("data_order", format!("{own:?}"), format!("{expected:?}"));
        }
        found
    }
}
