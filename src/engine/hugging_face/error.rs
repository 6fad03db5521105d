//! Why a Hugging Face directory cannot be used.

use std::path::PathBuf;

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::config::LlamaConfigError;
use crate::engine::tensor_file::TensorFileError;

/// Why a Hugging Face directory cannot be used.
#[derive(Debug, Error)]
pub enum HuggingFaceError {
    /// Its `config.json` is missing or describes an unsupported network.
    #[error(transparent)]
    Config(#[from] LlamaConfigError),
    /// It has no tokenizer.
    #[error("{} is missing", path.display())]
    NoTokenizer {
        /// Expected path.
        path: PathBuf,
    },
    /// The tokenizer has ids outside the vocabulary of the model.
    #[error("{}: it has ids up to {largest}, but vocab_size is {rows}", path.display())]
    TokenizerTooLarge {
        /// The tokenizer.
        path: PathBuf,
        /// The largest id.
        largest: usize,
        /// Vocabulary size of the model.
        rows: usize,
    },
    /// It has no weights.
    #[error("{} has no weights: neither model.safetensors nor model.safetensors.index.json exists", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// Its weights are in pickle files, which can run code when they are opened.
    #[error("{} has weights only as {name}, but only safetensors files are supported", path.display())]
    Pickled {
        /// The directory.
        path: PathBuf,
        /// Name of one of the files.
        name: String,
    },
    /// The list of shards cannot be used.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Its tensors do not match `config.json`.
    #[error("{}: {problem}", path.display())]
    OtherTensors {
        /// The directory.
        path: PathBuf,
        /// What is missing, unexpected or different.
        problem: String,
    },
    /// `generation_config.json` cannot be used.
    #[error("{}: {problem}", path.display())]
    Generation {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of tensors cannot be read.
    #[error(transparent)]
    Tensors(#[from] TensorFileError),
}

impl Advice for HuggingFaceError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Config(LlamaConfigError::Unfit { .. }) => {
                "only LLaMA models are supported: model_type \"llama\", without biases, rotary \
                 scaling or quantization"
                    .into()
            }
            Self::Pickled { .. } => "convert it: load it with transformers, then \
                                     save_pretrained(DIR, safe_serialization=True)"
                .into(),
            Self::NoTokenizer { .. } => "save a fast tokenizer there: \
                                         AutoTokenizer.from_pretrained(DIR, \
                                         use_fast=True).save_pretrained(DIR)"
                .into(),
            Self::TokenizerTooLarge { .. } => {
                "use the tokenizer of the model, or add rows with resize_token_embeddings".into()
            }
            Self::Config(LlamaConfigError::Io { .. }) | Self::NoWeights { .. } => {
                "name a directory written by save_pretrained".into()
            }
            Self::Tensors(TensorFileError::Unusable { .. }) => "its training had diverged, or the \
                                                                file is damaged: use another copy \
                                                                or an earlier checkpoint"
                .into(),
            Self::Generation { .. } => "remove the file, or save it again with transformers".into(),
            Self::Index { .. } | Self::OtherTensors { .. } | Self::Tensors(_) => {
                "download or save the directory again".into()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            // The weights are broken, not the request or the directory.
            Self::Tensors(TensorFileError::Unusable { .. }) => FAILED,
            _ => USAGE,
        }
    }
}
