//! Removes a run: its directory with all files, and its entry in the index.
//!
//! The run's lock is held from the first check to the end, so that no engine can start in between.
//! The directory is renamed first, so that a partial one is never taken for a run. Links are
//! removed, not followed. Start at [`Removal::begin`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::record::directory::{REMOVING, is_being_removed};
use crate::record::files::sync_directory;
use crate::record::{LockError, RunDirectory, RunIndex, RunLock, is_alive};
use crate::text::format::shell_word;

/// A run that can be removed, with its lock.
#[derive(Debug)]
pub struct Removal {
    directory: RunDirectory,
    /// Held until the directory is gone.
    _lock: RunLock,
    /// Files in the run directory that patchtui did not write.
    others: Vec<String>,
    /// Links in the run directory, with their targets, which are kept.
    links: Vec<(PathBuf, PathBuf)>,
}

/// Why a run was not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// It is running, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The path is something else.
    #[error("{} is not a run directory", path.display())]
    NotARun {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
}

impl Advice for RemoveError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Lock(LockError::Alive { name, .. }) => {
                format!("stop it first: patchtui ctl {} stop", shell_word(name))
            }
            Self::Lock(LockError::NoLocks { .. }) => {
                "make sure that no engine works on it, then delete the folder yourself".into()
            }
            Self::Lock(error) => error.hint(audience),
            Self::NotARun { .. } => "list all runs with: patchtui runs".into(),
            Self::Io { .. } => {
                "check the permissions of the folder, then run the command again".into()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Lock(error) => error.exit_code(),
            Self::NotARun { .. } => USAGE,
            Self::Io { .. } => FAILED,
        }
    }
}

impl Removal {
    /// Locks the run in `directory` and lists what would be removed; removes nothing.
    ///
    /// # Errors
    /// When there is no run, or it is running.
    pub fn begin(directory: &RunDirectory) -> Result<Self, RemoveError> {
        let path = directory.path();
        if !directory.is_run() {
            return Err(RemoveError::NotARun { path: path.to_owned() });
        }
        let io = |source| RemoveError::Io { path: path.to_owned(), source };
        let lock = RunLock::acquire(directory)?;
        let (mut others, mut links) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !RunDirectory::owns(&name) {
                others.push(name);
            }
            if let Ok(target) = fs::read_link(entry.path()) {
                links.push((entry.path(), target));
            }
        }
        others.sort();
        Ok(Self { directory: directory.clone(), _lock: lock, others, links })
    }

    /// Directory of the run.
    #[must_use]
    pub fn directory(&self) -> &RunDirectory {
        &self.directory
    }

    /// Names in the run directory that patchtui did not write, sorted.
    #[must_use]
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Links in the run directory with their targets, which are not removed.
    #[must_use]
    pub fn links(&self) -> &[(PathBuf, PathBuf)] {
        &self.links
    }

    /// Removes the run and its entry in `index`.
    ///
    /// # Errors
    /// When the file system refuses; some files may then remain, under the path in the error.
    pub fn finish(self, index: &RunIndex) -> Result<(), RemoveError> {
        let path = self.directory.path();
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RemoveError::Io { path, source }
        };
        let parent = path.parent().unwrap_or(path);
        sweep(parent);
        let nameless =
            parent.join(format!(".{}{REMOVING}{}", self.directory.name(), std::process::id()));
        fs::rename(path, &nameless).map_err(io(path))?;
        let _ = sync_directory(parent);
        // From here on there is no run of this name, whether or not all files can be removed.
        index.forget(&self.directory);
        fs::remove_dir_all(&nameless).map_err(io(&nameless))
    }
}

/// Completes interrupted removals; removals in progress hold a lock.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for folder in entries.flatten().map(|entry| entry.path()).filter(|path| is_being_removed(path))
    {
        if !is_alive(&RunDirectory::new(&folder)) {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::record::directory::run_at;

    #[test]
    fn a_run_is_removed_with_its_entry_and_what_links_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let index = RunIndex::at(folder.path().join("state"));
        let (run, other) =
            (run_at(&folder.path().join("runs/books")), run_at(&folder.path().join("runs/other")));
        index.add(&run).unwrap();
        index.add(&other).unwrap();
        let precious = folder.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("thesis.tex"), "").unwrap();
        symlink(&precious, run.path().join("texts")).unwrap();
        symlink(&precious, run.checkpoints().join("step-00000001")).unwrap();
        // Left behind by a removal that a power cut interrupted.
        fs::create_dir(folder.path().join("runs/.old.removing-1")).unwrap();
        fs::write(folder.path().join("runs/.old.removing-1/config.toml"), "").unwrap();
        assert_eq!(index.all(&folder.path().join("runs")).len(), 2);
        let removal = Removal::begin(&run).unwrap();
        assert_eq!((removal.others(), removal.links().len()), (["texts".to_owned()].as_slice(), 1));
        removal.finish(&index).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
        assert!(precious.join("thesis.tex").exists());
    }

    #[test]
    fn a_running_run_and_a_folder_that_is_none_stay() {
        let folder = tempfile::tempdir().unwrap();
        let run = run_at(&folder.path().join("books"));
        let lock = RunLock::acquire(&run).unwrap();
        let refused = Removal::begin(&run).unwrap_err();
        assert_eq!(
            (refused.to_string(), refused.hint(Audience::Command)),
            (
                "the run \"books\" is already running".into(),
                "stop it first: patchtui ctl books stop".into()
            )
        );
        drop(lock);
        Removal::begin(&run).unwrap();
        assert!(matches!(
            Removal::begin(&RunDirectory::new(folder.path())),
            Err(RemoveError::NotARun { .. })
        ));
        assert!(run.path().exists());
    }
}
