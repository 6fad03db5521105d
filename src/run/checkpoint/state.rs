//! `trainer.json`: the position of a run, and enough of its identity to notice a checkpoint of another run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Hash of the weights that the run started from, if they were not random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<String>,
    /// Version of the arithmetic that computed it.
    #[serde(default = "first_arithmetic")]
    pub arithmetic: u32,
    /// Where the run was forked from another one, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
}

/// The checkpoint of another run at which a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Name of that run.
    pub run: String,
    /// Completed updates of the checkpoint.
    pub step: u64,
    /// Updates since its moments were zero.
    pub optimizer_count: u64,
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
    /// Version of the rules by which files became documents.
    #[serde(default = "first_text_rules")]
    pub text_rules: u32,
}

/// A value of a checkpoint that contradicts the run's plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the value, like `seed` or `model.rope_theta`.
    pub what: String,
    /// Value in the checkpoint.
    pub found: String,
    /// Value according to configuration and text.
    pub expected: String,
}

impl TrainerState {
    /// Version of the files that are written today.
    pub const FORMAT_VERSION: u32 = 2;

    /// Version of the arithmetic of today. Another order of additions is another version: it follows the same run, but not to
    /// the last bit. 1 recorded the forward pass; 2 had backward passes of its own; 3 has kernels, and one order for all numbers of
    /// threads; 4 adds the terms of large gradients of weights in chunks of its own; 5 takes factors of products below 1e-30 for zero.
    pub const ARITHMETIC: u32 = 5;

    /// What differs from `expected`, the state that the plan has after the same number of updates; causes before consequences.
    ///
    /// Values that an older format lacks are not compared, and neither are `has_measured` and `arithmetic`.
    #[must_use]
    pub fn differences(&self, expected: &Self) -> Vec<Difference> {
        let as_json = |state: &Self| serde_json::to_value(state).unwrap_or_default();
        let mut found = Vec::new();
        compare("", &as_json(self), &as_json(expected), &mut found);
        found.retain(|difference| !NOT_COMPARED.iter().any(|name| difference.what.split('.').next() == Some(name)));
        // Another seed also moves the cursor, and another text everything that is counted in it.
        found.sort_by_key(|difference| CAUSES.iter().position(|cause| difference.what.starts_with(cause)).unwrap_or(CAUSES.len()));
        found
    }
}

fn first_text_rules() -> u32 {
    1
}

fn first_arithmetic() -> u32 {
    1
}

/// What may differ between checkpoints of one run.
///
/// A run that resumes takes the hash of its initial weights and its fork from its checkpoint, since their files may be gone.
const NOT_COMPARED: [&str; 5] = ["format_version", "has_measured", "arithmetic", "initial_weights", "fork"];
/// What makes other values differ as well, in the order in which a person wants to know.
const CAUSES: [&str; 5] = ["seed", "tokenizer", "data_fingerprint", "data_order", "model"];

/// Collects where `own` differs from `expected`; `null` stands for what an older format lacks.
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
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            found.push(Difference { what: name.to_owned(), found: text(own), expected: text(expected) });
        }
        _ => {}
    }
}
