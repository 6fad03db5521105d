//! Hugging Face directories as written and read by `transformers`: configuration, sharded weights,
//! tokenizer.
//!
//! Start at [`WeightFiles`] for reading, at [`export`] for writing; [`crate::config::LlamaConfig`]
//! reads `config.json`.

mod error;
mod export;
mod generation;
mod names;
mod shards;
mod tokenizer_files;
mod weights;

pub use error::HuggingFaceError;
pub use export::{ExportError, ExportReport, ExportRequest, export};
pub use generation::end_tokens;
pub use names::weight_dims;
pub use weights::WeightFiles;

/// Weights in one file.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Index of shards: which file has which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Generation settings.
pub const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
