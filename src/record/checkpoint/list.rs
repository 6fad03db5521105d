//! Lists every directory in a run's folder of checkpoints, valid or not, and finds the best
//! checkpoint.

use std::io;
use std::path::PathBuf;

use crate::record::checkpoint::name::step_of;
use crate::record::checkpoint::{Checkpoint, CheckpointError, Checkpoints, Manifest};
use crate::record::directory::size_below;

/// A directory named like a checkpoint.
#[derive(Debug)]
pub struct ListedCheckpoint {
    /// Path of the directory.
    pub path: PathBuf,
    /// The step in its name.
    pub step: u64,
    /// Its manifest, if it can be read.
    pub manifest: Option<Manifest>,
    /// Why it is not valid, as far as that is known without reading tensors.
    pub problem: Option<CheckpointProblem>,
    /// Whether its token loss is the lowest among the valid ones.
    pub is_best: bool,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Why a directory is not a valid checkpoint.
#[derive(Debug)]
pub enum CheckpointProblem {
    /// A save or a deletion was interrupted, or a save is in progress.
    Unfinished,
    /// Its content does not match the manifest.
    Damaged(CheckpointError),
    /// It cannot be read at present.
    Unreadable(CheckpointError),
}

impl Checkpoints {
    /// All checkpoints, newest first; names, lengths and small files are checked, tensors are not
    /// read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<ListedCheckpoint>, CheckpointError> {
        let mut listed: Vec<_> =
            self.directories("")?.into_iter().map(ListedCheckpoint::of).collect();
        listed.extend(self.directories("tmp")?.into_iter().map(ListedCheckpoint::of));
        listed.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.step));
        let best = best_step(
            listed
                .iter()
                .filter(|checkpoint| checkpoint.problem.is_none())
                .filter_map(|checkpoint| checkpoint.manifest.as_ref()),
        );
        for checkpoint in &mut listed {
            checkpoint.is_best = checkpoint.problem.is_none() && Some(checkpoint.step) == best;
        }
        Ok(listed)
    }
}

impl ListedCheckpoint {
    fn of(path: PathBuf) -> Self {
        let (step, bytes) = (step_of(&path).unwrap_or_default(), size_below(&path));
        let (manifest, problem) = match Checkpoint::read_quickly(&path) {
            _ if path.extension().is_some() => {
                (Manifest::read(&path).ok(), Some(CheckpointProblem::Unfinished))
            }
            Ok(checkpoint) => (Some(checkpoint.manifest), None),
            Err(error) => (Manifest::read(&path).ok(), Some(error.into())),
        };
        Self { path, step, manifest, problem, is_best: false, bytes }
    }

    /// Whether pruning by the engine keeps it: the end of a stage or of the run.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.permanent)
    }
}

impl From<CheckpointError> for CheckpointProblem {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Damaged { .. } => Self::Damaged(error),
            // A missing file will not come back; a file that cannot be read now, e.g. on a network,
            // may.
            CheckpointError::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::Damaged(error)
            }
            error => Self::Unreadable(error),
        }
    }
}

impl std::fmt::Display for CheckpointProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unfinished => {
                f.write_str("unfinished: a save or a deletion was interrupted, or is in progress")
            }
            Self::Damaged(error) | Self::Unreadable(error) => error.fmt(f),
        }
    }
}

/// The step with the lowest token loss; on a tie the earliest.
pub(super) fn best_step<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Option<u64> {
    let measured = manifests.filter_map(|manifest| {
        Some((manifest.token_loss.filter(|loss| loss.is_finite())?, manifest.step))
    });
    measured
        .min_by(|(a, a_step), (b, b_step)| a.total_cmp(b).then(a_step.cmp(b_step)))
        .map(|(_, step)| step)
}
