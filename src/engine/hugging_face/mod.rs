//! Directories as Hugging Face's `transformers` writes and reads them: configuration, weights in shards, tokenizer.
//!
//! Knows files and names; never runs, devices or training. Start at [`WeightFiles`] for reading, at [`export`] for writing; what
//! `config.json` may say is read by [`crate::config::LlamaConfig`].

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
/// Which of several files has which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// How text is generated.
pub const GENERATION_FILE: &str = "generation_config.json";
/// The tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
