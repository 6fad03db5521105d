//! A folder for files that nobody needs afterwards.

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::commands::CommandError;

/// A new folder among the temporary ones that only this user can enter; it goes away with its owner.
#[derive(Debug)]
pub(super) struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Creates it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn new() -> Result<Self, CommandError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("patchtui-bench-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        // Fails if it exists: what somebody else has put there is not used.
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| CommandError::io(&path, &error))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
