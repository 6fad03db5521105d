//! Why a checkpoint could not be written or read.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::text::format;

/// Why a checkpoint could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// There is too little free space; checked before anything is written.
    #[error("{}: it needs {}, but only {} are free", path.display(), format::bytes(*needed), format::bytes(*free))]
    NoRoom {
        /// The folder of checkpoints.
        path: PathBuf,
        /// Bytes of the checkpoint.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The run directory was deleted, moved or replaced during the run.
    #[error("{} is not the directory that this run started in: it was deleted, moved or replaced", path.display())]
    Gone {
        /// The run directory.
        path: PathBuf,
    },
    /// The run's lines up to this step cannot be written to disk, and a checkpoint must not be
    /// ahead of them.
    #[error("the run's metrics and events are not on the disk: {0}")]
    Lines(io::Error),
    /// A file of tensors could not be written or read.
    #[error(transparent)]
    Tensors(Box<dyn Error + Send + Sync>),
    /// A file is damaged.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Why it is rejected.
        problem: String,
    },
    /// The run was stopped before all bytes were checked.
    #[error("checking the checkpoint was interrupted")]
    Interrupted,
}

impl CheckpointError {
    pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }

    pub(super) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }
}

impl Advice for CheckpointError {
    fn hint(&self, audience: Audience<'_>) -> String {
        let Audience::Run(run) = audience else {
            return match self {
                Self::Io { .. } => {
                    "check that the folder exists, that you may write there and \
                                    that the disk has space"
                }
                _ => "list all checkpoints with: patchtui checkpoint ls RUN",
            }
            .into();
        };
        let resume = format!("patchtui resume {run}");
        match self {
            Self::Io { .. } | Self::Lines(_) | Self::Tensors(_) => {
                format!("check free disk space and permissions, then resume with: {resume}")
            }
            Self::NoRoom { .. } => format!("free some disk space, then resume with: {resume}"),
            Self::Gone { .. } => {
                "put the directory back under its old name, or start the run again".into()
            }
            Self::Damaged { .. } => format!("resume from an earlier checkpoint: {resume}"),
            Self::Interrupted => format!("resume with: {resume}"),
        }
    }
}
