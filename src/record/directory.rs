//! Paths of the files of a run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::record::files::create_directory;

/// Everything that a run writes into its directory, except temporary files.
const OWN_NAMES: [&str; 17] = [
    "config.toml",
    "plan.json",
    "held_out.json",
    "events.jsonl",
    "metrics.jsonl",
    "evals.jsonl",
    "activations.jsonl",
    "samples.jsonl",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "checkpoints",
    "engine.json",
    "engine.log",
    "engine.sock",
    "lock",
    "tensorboard",
];

/// Part of the name of a directory that is being removed.
pub(super) const REMOVING: &str = ".removing-";

/// The directory of a run; the only place that defines the file names in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// The run at `path`, which need not exist; a relative path is relative to the current folder.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self {
            path: fs::canonicalize(path)
                .or_else(|_| std::path::absolute(path))
                .unwrap_or_else(|_| path.to_path_buf()),
        }
    }

    /// The same, but creates the folder and its `checkpoints/` if missing, synced to disk.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        create_directory(&path.as_ref().join("checkpoints"))?;
        Ok(Self::new(path))
    }

    /// Absolute path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the run: the last part of its path.
    #[must_use]
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.to_string_lossy(), |name| name.to_string_lossy())
            .into_owned()
    }

    /// Whether `path` looks like a run.
    #[must_use]
    pub fn is_run(&self) -> bool {
        [self.config(), self.events(), self.engine_json()].iter().any(|file| file.is_file())
    }

    /// Resolved configuration, every key with its value.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Plan of the run.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// Which tokens of the prepared text are held out for validation.
    #[must_use]
    pub fn held_out(&self) -> PathBuf {
        self.path.join("held_out.json")
    }

    /// One line per event that has no separate file.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// One line per reporting step.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// One line per evaluation of the token loss.
    #[must_use]
    pub fn evals(&self) -> PathBuf {
        self.path.join("evals.jsonl")
    }

    /// One line per activation measurement.
    #[must_use]
    pub fn activations(&self) -> PathBuf {
        self.path.join("activations.jsonl")
    }

    /// One line per sample.
    #[must_use]
    pub fn samples(&self) -> PathBuf {
        self.path.join("samples.jsonl")
    }

    /// The run's own copy of its tokenizer, if that is a file.
    #[must_use]
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// Folder of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Process, machine and socket of the current or last engine.
    #[must_use]
    pub fn engine_json(&self) -> PathBuf {
        self.path.join("engine.json")
    }

    /// Output of the engine process.
    #[must_use]
    pub fn engine_log(&self) -> PathBuf {
        self.path.join("engine.log")
    }

    /// Socket of the engine if the folder for sockets cannot be used.
    #[must_use]
    pub fn engine_socket(&self) -> PathBuf {
        self.path.join("engine.sock")
    }

    /// Locked while an engine is running.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// Whether a run writes a file or folder of this `name` into its directory.
    #[must_use]
    pub fn owns(name: &str) -> bool {
        OWN_NAMES.contains(&name)
            || Path::new(name).extension().is_some_and(|extension| extension == "tmp")
    }

    /// Bytes of all files below the directory; unreadable files count as 0.
    #[must_use]
    pub fn size(&self) -> u64 {
        size_below(&self.path)
    }
}

/// Bytes of all files below `folder`; links are not followed, and unreadable files count as 0.
pub(super) fn size_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size_of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size_of).sum()
}

/// A run directory as `RunDirectory::is_run` wants it, for tests.
/// Whether `folder` is a run whose removal was interrupted.
pub(super) fn is_being_removed(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| {
        name.to_string_lossy().starts_with('.') && name.to_string_lossy().contains(REMOVING)
    })
}

#[cfg(test)]
pub(super) fn run_at(path: &Path) -> RunDirectory {
    let run = RunDirectory::create(path).unwrap();
    fs::write(run.config(), "").unwrap();
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_counts_folders_below() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("run")).unwrap();
        fs::write(run.metrics(), [0; 10]).unwrap();
        fs::write(run.checkpoints().join("weights"), [0; 32]).unwrap();
        assert_eq!(run.size(), 42);
        assert_eq!(run.name(), "run");
    }
}
