//! A folder for temporary files.

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::advice::Failure;

/// Prefix of the folder names; the id of the process that made the folder follows.
const PREFIX: &str = "patchtui-bench-";

/// A new temporary folder that only this user can enter; it is removed on drop.
#[derive(Debug)]
pub(super) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Creates the folder.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn new() -> Result<Self, Failure> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_orphans(&env::temp_dir());
        let name = format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        // Fails if the folder exists: one that somebody else has made is not used.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| Failure::io(&path, &error))?;
        Ok(Self(path))
    }

    /// Path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the folders in `parent` whose process was killed, as far as this user may.
fn remove_orphans(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|id| id.parse().ok());
        let is_gone = owner
            .and_then(Pid::from_raw)
            .is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH));
        if is_gone && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let mut child = process::Command::new("true").spawn().unwrap();
        let [orphan, own, other] = [
            format!("{PREFIX}{}-0", child.id()),
            format!("{PREFIX}{}-0", process::id()),
            format!("{PREFIX}x"),
        ];
        child.wait().unwrap();
        for name in [&orphan, &own, &other] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_orphans(parent.path());
        assert_eq!(
            [orphan, own, other].map(|name| parent.path().join(name).exists()),
            [false, true, true]
        );
    }

    #[test]
    fn nothing_is_left() {
        let folder = ScratchFolder::new().unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "text").unwrap();
        assert_ne!(ScratchFolder::new().unwrap().path(), path);
        drop(folder);
        assert!(!path.exists());
    }
}
