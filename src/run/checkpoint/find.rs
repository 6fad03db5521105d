//! From a path to a checkpoint: a run stands for its newest valid one, a checkpoint's directory for itself.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::run::RunDirectory;
use crate::run::checkpoint::name::step_of;
use crate::run::checkpoint::{Checkpoint, CheckpointError, Checkpoints, MANIFEST_FILE, Rejected};
use crate::run::format::shell_word;

/// A valid checkpoint and the run that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundCheckpoint {
    /// The checkpoint; every byte of it matches its manifest.
    pub checkpoint: Checkpoint,
    /// Its run, which says how it was trained.
    pub run: RunDirectory,
    /// Newer checkpoints of the run that cannot be used; empty if the path names the checkpoint itself.
    pub rejected: Vec<Rejected>,
}

/// Why a path does not lead to a checkpoint.
#[derive(Debug, Error)]
pub enum FindCheckpointError {
    /// There is nothing at the path.
    #[error("{} does not exist", path.display())]
    Missing {
        /// As the user wrote it.
        path: PathBuf,
    },
    /// There is something else at the path.
    #[error("{} is neither a run nor a checkpoint of one", path.display())]
    NotACheckpoint {
        /// As the user wrote it.
        path: PathBuf,
    },
    /// A checkpoint that is not in its run's directory, where its tokenizer and its configuration are.
    #[error("{} lies outside its run, which says how it was trained", path.display())]
    Outside {
        /// As the user wrote it.
        path: PathBuf,
    },
    /// The run has not saved anything yet.
    #[error("{} has no checkpoint yet", run.display())]
    NothingSaved {
        /// The run's directory.
        run: PathBuf,
    },
    /// The run has checkpoints, and none of them is valid.
    #[error("none of the run's {} checkpoints can be used; {} is not used: {}", rejected.len(), rejected[0].path.display(), rejected[0].reason)]
    NoneValid {
        /// All of them, newest first; at least one.
        rejected: Vec<Rejected>,
    },
    /// The checkpoint at the path is not valid, or cannot be read.
    #[error("checkpoint: {0}")]
    Invalid(#[from] CheckpointError),
}

impl FindCheckpointError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { .. } | Self::NotACheckpoint { .. } => "list all runs with: patchtui runs".into(),
            Self::Outside { .. } => "move it back into checkpoints/ of its run, or copy the whole run instead".into(),
            Self::NothingSaved { run } => format!("go on with it until it has saved one: patchtui resume {}", shell_word(&run.to_string_lossy())),
            Self::NoneValid { .. } => "restore a checkpoint from a copy".into(),
            Self::Invalid(_) => "restore it from a copy, or name its run, which stands for its newest valid checkpoint".into(),
        }
    }
}

impl FoundCheckpoint {
    /// Finds the checkpoint that `path` stands for, and checks every byte of it.
    ///
    /// # Errors
    /// When nothing valid is there.
    pub fn at(path: &Path) -> Result<Self, FindCheckpointError> {
        let shown = path.to_owned();
        if !path.exists() {
            return Err(FindCheckpointError::Missing { path: shown });
        }
        if let Some((folder, run)) = in_run(path) {
            let checkpoint = Checkpoints::new(&run, 0).verify(&folder, &|| false)?;
            return Ok(Self { checkpoint, run, rejected: Vec::new() });
        }
        let run = RunDirectory::new(path);
        if run.is_run() {
            return Self::newest(run);
        }
        Err(if path.join(MANIFEST_FILE).exists() { FindCheckpointError::Outside { path: shown } } else { FindCheckpointError::NotACheckpoint { path: shown } })
    }

    fn newest(run: RunDirectory) -> Result<Self, FindCheckpointError> {
        match Checkpoints::new(&run, 0).newest(&|_| Ok(()), &|| false)? {
            (Some(checkpoint), rejected) => Ok(Self { checkpoint, run, rejected }),
            (None, rejected) if rejected.is_empty() => Err(FindCheckpointError::NothingSaved { run: run.path().to_owned() }),
            (None, rejected) => Err(FindCheckpointError::NoneValid { rejected }),
        }
    }
}

/// The checkpoint's directory that `path` names, and its run, if it has a checkpoint's name and lies in a run.
fn in_run(path: &Path) -> Option<(PathBuf, RunDirectory)> {
    // As it is written first: the folder of checkpoints may be a link to another disk.
    let spellings = [std::path::absolute(path), fs::canonicalize(path)];
    spellings.into_iter().flatten().find_map(|folder| {
        let run = RunDirectory::new(folder.parent()?.parent()?);
        let is_inside = folder.parent()?.file_name() == run.checkpoints().file_name() && run.is_run();
        (is_inside && folder.extension().is_none() && step_of(&folder).is_some()).then_some((folder, run))
    })
}
