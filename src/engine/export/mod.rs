//! Writes a model as a Hugging Face directory that `transformers` loads.
//!
//! Start at [`export`].

mod write;

mod shards;
mod tokenizer_files;

mod error;

pub use error::ExportError;
pub use write::{ExportReport, ExportRequest, export};
