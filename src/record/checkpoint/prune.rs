//! Decides which checkpoints are deleted: by the engine after every save, and on request.
//!
//! The engine relies on manifests, since it has just written a valid checkpoint. On request, every
//! byte of the checkpoints to keep is checked first. Start at [`Checkpoints::choose`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::record::checkpoint::list::best_step;
use crate::record::checkpoint::{
    Checkpoint, CheckpointError, CheckpointProblem, Checkpoints, ListedCheckpoint, MANIFEST_FILE,
    Manifest,
};

/// What to keep when checkpoints are pruned on request.
#[derive(Debug, Clone, Default)]
pub struct KeepRule {
    /// Newest valid periodic checkpoints to keep; at least 1 is kept.
    pub keep: usize,
    /// Whether permanent ones are treated like periodic ones.
    pub prunes_permanent: bool,
    /// Whether the best one is treated like a periodic one.
    pub prunes_best: bool,
    /// Whether damaged ones are deleted.
    pub prunes_damaged: bool,
}

/// What happens to a checkpoint, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Kept: among the newest valid ones.
    Newest,
    /// Kept: the end of a stage or of the run.
    Permanent,
    /// Kept: the lowest token loss.
    Best,
    /// Kept: not valid, and deletion was not requested.
    NotValid,
    /// Deleted: older than the ones kept.
    DeleteOld,
    /// Deleted: left behind by a save or a deletion.
    DeleteUnfinished,
    /// Deleted: not valid.
    DeleteDamaged,
}

impl Choice {
    /// Whether the checkpoint is deleted.
    #[must_use]
    pub fn deletes(self) -> bool {
        matches!(self, Self::DeleteOld | Self::DeleteUnfinished | Self::DeleteDamaged)
    }

    /// The reason in a few words.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Newest => "among the newest",
            Self::Permanent => "permanent",
            Self::Best => "lowest token loss",
            Self::NotValid => "not valid",
            Self::DeleteOld => "old",
            Self::DeleteUnfinished => "unfinished",
            Self::DeleteDamaged => "damaged",
        }
    }
}

impl Checkpoints {
    /// Decides what to do with every checkpoint, newest first; deletes nothing. The caller holds
    /// the run's lock.
    ///
    /// The newest valid checkpoint is always kept, so the only valid one is never deleted.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn choose(
        &self,
        rule: &KeepRule,
    ) -> Result<Vec<(ListedCheckpoint, Choice)>, CheckpointError> {
        let mut num_kept = 0;
        let mut chosen = Vec::new();
        for mut checkpoint in self.list()? {
            let is_periodic = (rule.prunes_permanent || !checkpoint.is_permanent())
                && (rule.prunes_best || !checkpoint.is_best);
            if checkpoint.problem.is_none() && is_periodic && num_kept < rule.keep.max(1) {
                checkpoint.problem =
                    self.verify(&checkpoint.path, &|| false).err().map(CheckpointProblem::from);
                num_kept += usize::from(checkpoint.problem.is_none());
                if checkpoint.problem.is_none() {
                    chosen.push((checkpoint, Choice::Newest));
                    continue;
                }
            }
            let choice = match &checkpoint.problem {
                Some(CheckpointProblem::Unfinished) => Choice::DeleteUnfinished,
                Some(_) if has_no_manifest(&checkpoint.path) => Choice::DeleteUnfinished,
                Some(CheckpointProblem::Damaged(_)) if rule.prunes_damaged => Choice::DeleteDamaged,
                Some(_) => Choice::NotValid,
                None if !rule.prunes_permanent && checkpoint.is_permanent() => Choice::Permanent,
                None if !rule.prunes_best && checkpoint.is_best => Choice::Best,
                None => Choice::DeleteOld,
            };
            chosen.push((checkpoint, choice));
        }
        Ok(chosen)
    }

    /// Deletes the checkpoint in `path`. It is renamed first, so that a partial one is never taken
    /// for a checkpoint.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn delete(&self, path: &Path) -> Result<(), CheckpointError> {
        let scratch = path.with_extension("tmp");
        if path != scratch {
            self.disk.remove_folder(&scratch).map_err(CheckpointError::at(&scratch))?;
            self.disk.exchange(path, &scratch).map_err(CheckpointError::at(path))?;
        }
        self.disk.remove_folder(&scratch).map_err(CheckpointError::at(path))
    }

    /// Deletes all but the newest `keep` periodic checkpoints up to `newest`, and leftovers of
    /// interrupted saves and deletions. Later steps are from before a fallback; training will
    /// write them again.
    pub(super) fn prune(&self, newest: u64) -> Result<(), CheckpointError> {
        let candidates = self.candidates()?;
        let known = |path: &PathBuf| {
            Some((path.clone(), Manifest::read(path).ok()?))
                .filter(|(_, manifest)| manifest.step <= newest)
        };
        let known: Vec<(PathBuf, Manifest)> = candidates.iter().filter_map(known).collect();
        let whole = known
            .iter()
            .filter(|(path, _)| Checkpoint::read_quickly(path).is_ok())
            .map(|(_, manifest)| manifest);
        let best = if self.keep_best { best_step(whole) } else { None };
        let periodic = known.iter().filter(|(_, manifest)| !manifest.permanent).skip(self.keep);
        let old =
            periodic.filter(|(_, manifest)| Some(manifest.step) != best).map(|(path, _)| path);
        let broken = candidates.iter().filter(|path| has_no_manifest(path));
        for path in old.chain(broken).cloned().chain(self.directories("tmp")?) {
            self.disk.remove_folder(&path).map_err(CheckpointError::at(&path))?;
        }
        Ok(())
    }
}

/// Whether the deletion of `folder` has begun; a folder that cannot be examined is left alone.
fn has_no_manifest(folder: &Path) -> bool {
    matches!(fs::symlink_metadata(folder.join(MANIFEST_FILE)), Err(error) if error.kind() == io::ErrorKind::NotFound)
}
