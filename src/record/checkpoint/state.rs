//! `trainer.json`: the position of a run, and enough of its identity to notice a checkpoint of
//! another run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::PatchSize;
use crate::record::ModelOutline;

/// The position of a run. Contains no times, so that identical runs write identical bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Version of the format: version 1 has no `model`, `tokenizer` and `data_order`.
    pub format_version: u32,
    /// Completed updates.
    pub step: u64,
    /// Stage of the last completed update, counted from 0.
    pub stage: usize,
    /// Completed updates of that stage.
    pub stage_step: u64,
    /// Patch size (K) of that stage.
    pub patch_size: PatchSize,
    /// Updates since the optimizer state was reset.
    pub optimizer_count: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Position of the next update in the data order, in tokens.
    pub data_position: u64,
    /// The same as completed passes, block in the pass, and tokens into the block.
    pub cursor: [u64; 3],
    /// Seed of initial weights and data order.
    pub seed: u64,
    /// Fingerprint of the token stream.
    pub data_fingerprint: String,
    /// Whether all measurements due after the last update were made; a stop may have interrupted
    /// them.
    #[serde(alias = "has_looked")]
    pub has_measured: bool,
    /// Sizes of the network.
    #[serde(default)]
    pub model: Option<ModelOutline>,
    /// Hash of the tokenizer.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// Ids of the tokenizer's BOS and EOS tokens, which files beside it name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special_tokens: Option<[Option<u32>; 2]>,
    /// How the token stream is split and ordered.
    #[serde(default)]
    pub data_order: Option<DataOrder>,
    /// Hash of the initial weights, if they were not random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<String>,
    /// Version of the arithmetic that computed the checkpoint.
    #[serde(default = "first_arithmetic")]
    pub arithmetic: u32,
    /// Origin of a forked run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
}

/// The checkpoint of another run at which a fork begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Name of that run.
    pub run: String,
    /// Completed updates of the checkpoint.
    pub step: u64,
    /// Updates since its optimizer state was reset.
    pub optimizer_count: u64,
}

/// How a token stream is split into blocks and in which order they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataOrder {
    /// Tokens of a block.
    pub block_tokens: u64,
    /// Blocks per pass.
    pub blocks_per_epoch: u64,
    /// Whether the blocks are shuffled in each pass.
    pub shuffle: bool,
    /// Version of the rules by which files became documents.
    #[serde(default = "first_text_rules")]
    pub text_rules: u32,
}

/// A value of a checkpoint that contradicts the run's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the value, e.g. `seed` or `model.rope_theta`.
    pub what: String,
    /// Value in the checkpoint.
    pub found: String,
    /// Value according to configuration and text.
    pub expected: String,
}

impl TrainerState {
    /// Version of the format that is written today.
    pub const FORMAT_VERSION: u32 = 2;

    /// Current version of the arithmetic. A different order of additions is a different version: a
    /// run continues, but not bit for bit. Version 1 recorded the forward pass; 2 had its own
    /// backward passes; 3 has kernels, and one order for all numbers of threads; 4 accumulates
    /// large weight gradients in its own chunks; 5 treats factors of products below 1e-30 as
    /// zero.
    pub const ARITHMETIC: u32 = 5;

    /// The differences from `expected`, the state of the plan after the same number of updates;
    /// causes before consequences.
    ///
    /// Values that an older format lacks are not compared, and neither are `has_measured` and
    /// `arithmetic`.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<Difference> {
        let as_json = |state: &Self| serde_json::to_value(state).unwrap_or_default();
        let mut found = Vec::new();
        compare("", &as_json(self), &as_json(expected), &mut found);
        found.retain(|difference| {
            !NOT_COMPARED.iter().any(|name| difference.what.split('.').next() == Some(name))
        });
        // Another seed also changes the position, and another text changes everything that is
        // counted in it.
        found.sort_by_key(|difference| {
            CAUSES
                .iter()
                .position(|cause| difference.what.starts_with(cause))
                .unwrap_or(CAUSES.len())
        });
        found
    }
}

fn first_text_rules() -> u32 {
    1
}

fn first_arithmetic() -> u32 {
    1
}

/// Values that may differ between checkpoints of one run.
///
/// A resumed run takes the hash of its initial weights and its fork from its checkpoint, since
/// their files may be gone.
const NOT_COMPARED: [&str; 5] =
    ["format_version", "has_measured", "arithmetic", "initial_weights", "fork"];
/// Values that make others differ as well, in order of importance for the user.
const CAUSES: [&str; 5] = ["seed", "tokenizer", "data_fingerprint", "data_order", "model"];

/// Collects the differences between `own` and `expected`; `null` means that an older format lacks
/// the value.
fn compare(name: &str, own: &Value, expected: &Value, found: &mut Vec<Difference>) {
    match (own, expected) {
        (Value::Object(own), Value::Object(expected)) => {
            for (key, expected) in expected {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(&name, own.get(key).unwrap_or(&Value::Null), expected, found);
            }
        }
        (Value::Null, _) => {}
        (own, expected) if own != expected => {
            let text =
                |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            found.push(Difference {
                what: name.to_owned(),
                found: text(own),
                expected: text(expected),
            });
        }
        _ => {}
    }
}
