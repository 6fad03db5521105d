//! From a path to a checkpoint: for a run its newest valid one, for the directory of a checkpoint
//! that checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::record::RunDirectory;
use crate::record::checkpoint::name::step_of;
use crate::record::checkpoint::{
    Checkpoint, CheckpointError, Checkpoints, MANIFEST_FILE, ReadTensors, Rejected,
};
use crate::text::format::shell_word;

/// A valid checkpoint and its run.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundCheckpoint {
    /// The checkpoint; every byte of it matches its manifest.
    pub checkpoint: Checkpoint,
    /// Its run, which has the configuration and the tokenizer.
    pub run: RunDirectory,
    /// Newer checkpoints of the run that cannot be used; empty if the path names the checkpoint
    /// itself.
    pub rejected: Vec<Rejected>,
}

/// Why a path does not lead to a checkpoint.
#[derive(Debug, Error)]
pub enum FindCheckpointError {
    /// The path does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// Path as the user wrote it.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("{} is not a run, a checkpoint or a Hugging Face directory", path.display())]
    NotACheckpoint {
        /// Path as the user wrote it.
        path: PathBuf,
    },
    /// A checkpoint outside its run directory, which has its tokenizer and configuration.
    #[error("{} is outside its run directory, which has its configuration and tokenizer", path.display())]
    Outside {
        /// Path as the user wrote it.
        path: PathBuf,
    },
    /// The run has not saved anything yet.
    #[error("{} has no checkpoint yet", run.display())]
    NothingSaved {
        /// The run's directory.
        run: PathBuf,
    },
    /// None of the run's checkpoints is valid.
    #[error("none of the run's checkpoints can be used ({} rejected); {} is not used: {}", rejected.len(), rejected[0].path.display(), rejected[0].reason)]
    NoneValid {
        /// All of them, newest first; at least one.
        rejected: Vec<Rejected>,
    },
    /// The checkpoint at the path is not valid, or cannot be read.
    #[error("checkpoint: {0}")]
    Invalid(#[from] CheckpointError),
}

impl Advice for FindCheckpointError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Missing { .. } | Self::NotACheckpoint { .. } => "name a run, a checkpoint or a \
                                                                   Hugging Face directory; list \
                                                                   all runs with: patchtui runs"
                .into(),
            Self::Outside { .. } => {
                "move it back into checkpoints/ of its run, or copy the whole run instead".into()
            }
            Self::NothingSaved { run } => format!(
                "resume it until it has saved one: patchtui resume {}",
                shell_word(&run.to_string_lossy())
            ),
            Self::NoneValid { .. } => "restore a checkpoint from a copy".into(),
            Self::Invalid(_) => {
                "restore it from a copy, or name its run to use the newest valid checkpoint".into()
            }
        }
    }
}

impl FoundCheckpoint {
    /// Finds the checkpoint that `path` refers to and checks every byte of it.
    ///
    /// # Errors
    /// When there is no valid checkpoint.
    pub fn at(path: &Path) -> Result<Self, FindCheckpointError> {
        Self::read(path, &mut |_| {})
    }

    /// The same; `read` gets the tensor files while they are checked, those of the returned
    /// checkpoint last.
    ///
    /// # Errors
    /// As [`FoundCheckpoint::at`].
    pub fn read(path: &Path, read: &mut ReadTensors<'_>) -> Result<Self, FindCheckpointError> {
        let shown = path.to_owned();
        if !path.exists() {
            return Err(FindCheckpointError::Missing { path: shown });
        }
        if let Some((folder, run)) = in_run(path) {
            let checkpoint = Checkpoint::read(&folder, read, &|| false)?;
            return Ok(Self { checkpoint, run, rejected: Vec::new() });
        }
        let run = RunDirectory::new(path);
        if run.is_run() {
            return Self::newest(run, read);
        }
        Err(if path.join(MANIFEST_FILE).exists() {
            FindCheckpointError::Outside { path: shown }
        } else {
            FindCheckpointError::NotACheckpoint { path: shown }
        })
    }

    fn newest(run: RunDirectory, read: &mut ReadTensors<'_>) -> Result<Self, FindCheckpointError> {
        match Checkpoints::new(&run, 0).read_newest(&|_| Ok(()), read, &|| false)? {
            (Some(checkpoint), rejected) => Ok(Self { checkpoint, run, rejected }),
            (None, rejected) if rejected.is_empty() => {
                Err(FindCheckpointError::NothingSaved { run: run.path().to_owned() })
            }
            (None, rejected) => Err(FindCheckpointError::NoneValid { rejected }),
        }
    }
}

/// The checkpoint directory that `path` names, and its run, if it is named like a checkpoint and is
/// inside a run.
fn in_run(path: &Path) -> Option<(PathBuf, RunDirectory)> {
    // The path as written first: the folder of checkpoints may be a link to another disk.
    let spellings = [std::path::absolute(path), fs::canonicalize(path)];
    spellings.into_iter().flatten().find_map(|folder| {
        let run = RunDirectory::new(folder.parent()?.parent()?);
        let is_inside =
            folder.parent()?.file_name() == run.checkpoints().file_name() && run.is_run();
        (is_inside && folder.extension().is_none() && step_of(&folder).is_some())
            .then_some((folder, run))
    })
}
