//! The checkpoints of a run: saving one in a crash-safe order, finding the newest valid one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::RecordedConfig;
use crate::disk::{Disk, Operation};
use crate::record::RunDirectory;
use crate::record::checkpoint::name::{name_of, step_of};
use crate::record::checkpoint::{
    Checkpoint, CheckpointError, FileEntry, HashedWriter, LineHashes, MANIFEST_FILE, MODEL_FILE,
    Manifest, OPTIMIZER_FILE, ReadTensors, TRAINER_FILE, TrainerState,
};
use crate::record::files::is_same;

/// Generous upper bound for the files of a checkpoint other than its tensors.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    run: PathBuf,
    folder: PathBuf,
    /// The run directory, held open: its inode is not reused during the run, so another directory
    /// of the same name is recognized, and nothing is written into it.
    opened: Option<Arc<File>>,
    pub(super) keep: usize,
    pub(super) keep_best: bool,
    pub(super) disk: Disk,
}

/// Writes a tensor file, or says why it cannot.
type WriteTensors<'a> =
    dyn FnMut(&mut HashedWriter<'_>) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;

/// What to save.
pub struct NewCheckpoint<'a> {
    /// Position of the run.
    pub state: TrainerState,
    /// Time in steps per stage so far, in seconds.
    pub active_seconds: Vec<f64>,
    /// Token loss (K = 1) of exactly this step, if it was measured.
    pub token_loss: Option<f64>,
    /// Whether pruning keeps it.
    pub permanent: bool,
    /// Bytes of both tensor files.
    pub tensor_bytes: u64,
    /// Writes one of the two tensor files.
    pub write_tensors: &'a mut WriteTensors<'a>,
    /// Configuration of the run, to be recorded.
    pub config: RecordedConfig,
    /// Waits until every line of the run up to this step is on disk; returns the hashes of the
    /// lines.
    pub sync_lines: &'a dyn Fn() -> io::Result<LineHashes>,
    /// Whether the run was told to end without a checkpoint.
    pub stop: &'a dyn Fn() -> bool,
}

/// A directory named like a checkpoint that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Path of the directory.
    pub path: PathBuf,
    /// Why it is rejected.
    pub reason: String,
}

impl Checkpoints {
    /// The checkpoints of `directory`; pruning keeps the newest `keep` and all permanent ones.
    #[must_use]
    pub fn new(directory: &RunDirectory, keep: usize) -> Self {
        let run = directory.path().to_owned();
        Self {
            opened: File::open(&run).ok().map(Arc::new),
            folder: directory.checkpoints(),
            run,
            keep,
            keep_best: false,
            disk: Disk::default(),
        }
    }

    /// The same; with `keep_best`, pruning also keeps the checkpoint with the lowest token loss.
    #[must_use]
    pub fn keeping_best(self, keep_best: bool) -> Self {
        Self { keep_best, ..self }
    }

    /// The run's directory.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The same on a file system that can fail.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// Saves, then prunes; an existing valid checkpoint of the same state is kept as it is. Returns
    /// whether a checkpoint was written.
    ///
    /// The order makes a crash harmless: the run's lines, both tensor files, `trainer.json`, the
    /// manifest, each synced before the next, then a single rename.
    ///
    /// # Errors
    /// When the device or the disk fails. Earlier checkpoints are then untouched, and no partial
    /// files remain.
    pub fn save(&self, mut new: NewCheckpoint<'_>) -> Result<(Checkpoint, bool), CheckpointError> {
        self.check_identity()?;
        let path = self.folder.join(name_of(new.state.step));
        if path.exists()
            && let Ok(existing) = self.verify(&path, new.stop)
        {
            let says_all = (existing.manifest.permanent || !new.permanent)
                && (existing.manifest.token_loss.is_some() || new.token_loss.is_none());
            if existing.state == new.state && says_all {
                self.prune_quietly(existing.manifest.step);
                return Ok((existing, false));
            }
            new.permanent |= existing.manifest.permanent;
            new.token_loss = new.token_loss.or(existing.manifest.token_loss);
        }
        let scratch = path.with_extension("tmp");
        let checkpoint = self.write(&scratch, &path, new).inspect_err(|_| {
            // Leftovers of a failed save only take space that the next attempt needs.
            let _ = self.disk.remove_folder(&scratch);
        })?;
        self.prune_quietly(checkpoint.manifest.step);
        Ok((checkpoint, true))
    }

    /// Prunes after a save, which is valid even if an old checkpoint cannot be removed.
    fn prune_quietly(&self, newest: u64) {
        if let Err(error) = self.prune(newest) {
            tracing::warn!("an old checkpoint could not be removed: {error}");
        }
    }

    /// The newest checkpoint whose every byte matches its manifest and that passes `accepts`, and
    /// the newer ones that do not.
    ///
    /// # Errors
    /// When the folder cannot be read; [`CheckpointError::Interrupted`] when `stop` returns true.
    pub fn newest(
        &self,
        accepts: &dyn Fn(&Checkpoint) -> Result<(), String>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Option<Checkpoint>, Vec<Rejected>), CheckpointError> {
        self.read_newest(accepts, &mut |_| {}, stop)
    }

    /// The same; `read` gets the tensor files of each checkpoint that is checked, the returned
    /// one last.
    ///
    /// # Errors
    /// As [`Checkpoints::newest`].
    pub fn read_newest(
        &self,
        accepts: &dyn Fn(&Checkpoint) -> Result<(), String>,
        read: &mut ReadTensors<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Option<Checkpoint>, Vec<Rejected>), CheckpointError> {
        let mut rejected = Vec::new();
        for path in self.candidates()? {
            match Checkpoint::read(&path, read, stop) {
                Err(CheckpointError::Interrupted) => return Err(CheckpointError::Interrupted),
                Err(error) => rejected.push(Rejected { path, reason: error.to_string() }),
                Ok(checkpoint) => match accepts(&checkpoint) {
                    Ok(()) => return Ok((Some(checkpoint), rejected)),
                    Err(reason) => rejected.push(Rejected { path, reason }),
                },
            }
        }
        Ok((None, rejected))
    }

    /// The newest checkpoint by its own claims, unchecked: enough to report the position of a run
    /// that could not start.
    #[must_use]
    pub fn newest_claimed(&self) -> Option<Checkpoint> {
        self.candidates().ok()?.into_iter().find_map(|path| Checkpoint::read_claims(&path).ok())
    }

    /// Version of the rules by which the run's files became documents; before its first checkpoint
    /// that of the checkpoint it was forked from, so that a fork reads the same text. `None` if
    /// there is neither.
    #[must_use]
    pub fn text_rules(&self, fork_from: Option<&Path>) -> Option<u32> {
        let state =
            self.newest_claimed().or_else(|| Checkpoint::read_claims(fork_from?).ok())?.state;
        // Versions that did not record the data order used the first rules.
        Some(state.data_order.map_or(1, |order| order.text_rules))
    }

    /// Directories named like a checkpoint, newest first.
    ///
    /// # Errors
    /// When the folder cannot be read; a missing folder has none.
    pub fn candidates(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        self.directories("")
    }

    /// Checks the checkpoint in `path`, including its name.
    ///
    /// # Errors
    /// With the reason; [`CheckpointError::Interrupted`] when `stop` returns true.
    pub fn verify(
        &self,
        path: &Path,
        stop: &dyn Fn() -> bool,
    ) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::read(path, &mut |_| {}, stop)
    }

    /// Bytes that an ordinary user can still write on the disk of the checkpoints.
    ///
    /// # Errors
    /// When the file system cannot be queried.
    pub fn free_bytes(&self) -> Result<u64, CheckpointError> {
        let stat = rustix::fs::statvfs(&self.run)
            .map_err(|error| CheckpointError::at(&self.run)(error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn write(
        &self,
        scratch: &Path,
        path: &Path,
        new: NewCheckpoint<'_>,
    ) -> Result<Checkpoint, CheckpointError> {
        let at = CheckpointError::at;
        let lines = (new.sync_lines)().map_err(CheckpointError::Lines)?;
        self.disk.remove_folder(scratch).map_err(at(scratch))?;
        let (needed, free) = (SMALL_FILES_BYTES + new.tensor_bytes, self.free_bytes()?);
        if free < needed {
            return Err(CheckpointError::NoRoom { path: self.folder.clone(), needed, free });
        }
        if !self.folder.is_dir() {
            self.disk.create_folder(&self.folder).map_err(at(&self.folder))?;
            self.disk.sync(&self.run).map_err(at(&self.run))?;
        }
        self.disk.create_folder(scratch).map_err(at(scratch))?;
        let mut files = BTreeMap::new();
        for name in [MODEL_FILE, OPTIMIZER_FILE] {
            let entry = self.write_file(&scratch.join(name), new.stop, &mut |file| {
                (new.write_tensors)(file).map_err(CheckpointError::Tensors)
            })?;
            files.insert(name.to_owned(), entry);
        }
        let state = serde_json::to_string_pretty(&new.state).map(|text| text + "\n");
        let entry = self.write_json(&scratch.join(TRAINER_FILE), state, new.stop)?;
        files.insert(TRAINER_FILE.to_owned(), entry);
        let manifest = Manifest {
            format_version: Manifest::FORMAT_VERSION,
            step: new.state.step,
            stage: new.state.stage,
            patch_size: new.state.patch_size,
            permanent: new.permanent,
            created_at: jiff::Timestamp::now().to_string(),
            active_seconds: new.active_seconds,
            token_loss: new.token_loss.filter(|loss| loss.is_finite()),
            data_fingerprint: new.state.data_fingerprint.clone(),
            files,
            config: new.config,
            lines,
        };
        self.write_json(&scratch.join(MANIFEST_FILE), manifest.to_json(), &|| false)?;
        self.disk.sync(scratch).map_err(at(scratch))?;
        self.publish(scratch, path)?;
        Ok(Checkpoint { path: path.to_owned(), manifest, state: new.state })
    }

    /// Publishes a complete checkpoint under its name.
    fn publish(&self, scratch: &Path, path: &Path) -> Result<(), CheckpointError> {
        // Another run may have been started here during the save.
        self.check_identity()?;
        self.disk.exchange(scratch, path).map_err(CheckpointError::at(path))?;
        self.disk.sync(&self.folder).map_err(CheckpointError::at(&self.folder))?;
        // An older checkpoint of this step now has the scratch name; the new one is valid whether
        // or not that can be removed.
        if let Err(error) = self.disk.remove_folder(scratch) {
            tracing::warn!("{} could not be removed: {error}", scratch.display());
        }
        Ok(())
    }

    fn write_json(
        &self,
        path: &Path,
        text: Result<String, serde_json::Error>,
        stop: &dyn Fn() -> bool,
    ) -> Result<FileEntry, CheckpointError> {
        let text = text.map_err(|error| CheckpointError::damaged(path, error.to_string()))?;
        self.write_file(path, stop, &mut |file| {
            file.write_all(text.as_bytes()).map_err(CheckpointError::at(path))
        })
    }

    /// Writes a file and brings it to the disk; returns its size and hash.
    fn write_file(
        &self,
        path: &Path,
        stop: &dyn Fn() -> bool,
        write: &mut dyn FnMut(&mut HashedWriter<'_>) -> Result<(), CheckpointError>,
    ) -> Result<FileEntry, CheckpointError> {
        let at = CheckpointError::at(path);
        self.disk.before(Operation::Write, path).map_err(&at)?;
        let mut file = HashedWriter::create(path, stop).map_err(&at)?;
        write(&mut file).map_err(
            |error| {
                if stop() { CheckpointError::Interrupted } else { error }
            },
        )?;
        self.disk.before(Operation::Sync, path).map_err(&at)?;
        file.sync().map_err(&at)
    }

    fn check_identity(&self) -> Result<(), CheckpointError> {
        if is_same(self.opened.as_deref(), &self.run).unwrap_or(false) {
            Ok(())
        } else {
            Err(CheckpointError::Gone { path: self.run.clone() })
        }
    }

    pub(super) fn directories(&self, extension: &str) -> Result<Vec<PathBuf>, CheckpointError> {
        let at = CheckpointError::at(&self.folder);
        let listing = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(&at)?,
        };
        let is_checkpoint = |path: &PathBuf| {
            let wanted = path.extension().map_or(extension.is_empty(), |found| found == extension);
            wanted && step_of(path).is_some()
        };
        let paths = listing
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(&at)?;
        let mut found: Vec<PathBuf> = paths.into_iter().filter(is_checkpoint).collect();
        found.sort_by_key(|path| std::cmp::Reverse(step_of(path)));
        Ok(found)
    }
}
