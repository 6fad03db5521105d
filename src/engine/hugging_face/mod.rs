//! Hugging Face directories as `transformers` writes them: sharded weights, generation settings.
//!
//! Start at [`WeightFiles`]; [`crate::config::LlamaConfig`] reads `config.json`, and
//! [`crate::engine::export`] writes directories.

mod error;
mod generation;
mod names;
mod weights;

pub use error::HuggingFaceError;
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
