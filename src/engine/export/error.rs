//! Why a model was not exported.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::engine::hugging_face::HuggingFaceError;
use crate::engine::open::OpenError;
use crate::engine::patch_stage::PatchStage;

/// Why a model was not written.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The directory is not empty.
    #[error("{} exists and is not an empty directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The path cannot be the name of a new directory.
    #[error("{} cannot be the name of a new directory", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The model has not completed its token stage (K = 1).
    #[error("{model}: {stage}")]
    PatchStage {
        /// Its short name.
        model: String,
        /// The stage it is in.
        stage: PatchStage,
    },
    /// A weight is out of range of the number format.
    #[error("{tensor} contains {value:?}, which is out of range for {format}")]
    Overflow {
        /// Name of the tensor.
        tensor: String,
        /// The first such number.
        value: f32,
        /// Name of the number format.
        format: &'static str,
    },
    /// The tokenizer cannot be written as a tokenizer file.
    #[error("the tokenizer cannot be exported: {reason}")]
    Tokenizer {
        /// Why.
        reason: String,
    },
    /// The weights cannot be read.
    #[error(transparent)]
    Weights(#[from] HuggingFaceError),
    /// The model cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
}

impl Advice for ExportError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Exists { .. } | Self::NoName { .. } => "use a new directory for --to".into(),
            Self::PatchStage { .. } => "complete the run first (patchtui resume RUN), or add \
                                        --allow-patch-stage to export it as it is: it is unusable \
                                        as a token-level LM"
                .into(),
            Self::Overflow { .. } => "use --dtype bf16 or --dtype f32".into(),
            Self::Tokenizer { .. } => "restore the run's tokenizer.json from a copy".into(),
            Self::Weights(error) => error.hint(audience),
            Self::Open(error) => error.hint(audience),
            Self::Io { .. } => "check that the folder exists, that you may write there and that \
                                the disk has space"
                .into(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } => FAILED,
            Self::Open(error) => error.exit_code(),
            Self::Weights(error) => error.exit_code(),
            _ => USAGE,
        }
    }
}

impl ExportError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}
