//! Where an engine listens, and a listener that is put back when somebody removed its file.
//!
//! Sockets live in a private folder below the system's temporary directory. `XDG_RUNTIME_DIR` would be the usual place, but it
//! is removed at the last logout, which is exactly when an engine must stay reachable.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use tokio::net::UnixListener;

use crate::control::ControlError;
use crate::run::RunDirectory;

/// Bytes of a socket's address on Linux, with its closing zero.
const ADDRESS_BYTES: usize = 108;

/// A listener and the file it was put at.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Where the engine of `directory` listens: in `$PATCHTUI_SOCKET_DIR`, or else in a private temporary folder.
///
/// Clients read the path from the run's `engine.json`, so that they need not share the engine's environment.
pub fn socket_path(directory: &RunDirectory) -> Result<PathBuf, ControlError> {
    let folder = match std::env::var_os("PATCHTUI_SOCKET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join(format!("patchtui-{}", getuid().as_raw())),
    };
    socket_path_in(&folder, directory)
}

/// The same in a given folder, which is made if it is not there and refused if others can enter it.
pub fn socket_path_in(folder: &Path, directory: &RunDirectory) -> Result<PathBuf, ControlError> {
    make_private(folder)?;
    let path = folder.join(format!("{}.sock", directory.id()));
    if temporary_name(&path).as_os_str().len() < ADDRESS_BYTES { Ok(path) } else { Err(ControlError::PathTooLong { path, limit: ADDRESS_BYTES - 1 }) }
}

fn make_private(folder: &Path) -> Result<(), ControlError> {
    let refuse = |problem: String| ControlError::SocketFolder { path: folder.to_path_buf(), problem };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(refuse(error.to_string())),
        Ok(()) | Err(_) => {}
    }
    // Whoever made the folder first in a shared directory could listen in, through a link as well.
    let metadata = fs::symlink_metadata(folder).map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(refuse("it is not a folder".into()));
    }
    if metadata.uid() != getuid().as_raw() {
        return Err(refuse(format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!("others may enter it (mode {:o}, it must be 700)", metadata.mode() & 0o777)));
    }
    Ok(())
}

fn temporary_name(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", std::process::id()))
}

impl BoundSocket {
    /// Listens at `path`; a file that is there is left over, for the caller holds the run's lock.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let temporary = temporary_name(path);
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        // The sticky bit asks cleaners of temporary files to leave it alone.
        fs::set_permissions(&temporary, Permissions::from_mode(0o1700))?;
        let inode = fs::symlink_metadata(&temporary)?.ino();
        fs::rename(&temporary, path)?;
        Ok(Self { listener, path: path.to_path_buf(), inode })
    }

    /// Whether clients that come by the path reach this listener.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Puts a new listener at the same path; connections that stand are not touched.
    pub(crate) fn bind_again(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            make_private(folder).map_err(io::Error::other)?;
        }
        *self = Self::bind(&self.path)?;
        Ok(())
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_path_however_it_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        std::os::unix::fs::symlink(run.path(), folder.path().join("link")).unwrap();
        let linked = RunDirectory::new(folder.path().join("link"));
        let sockets = folder.path().join("sockets");
        let path = socket_path_in(&sockets, &run).unwrap();
        assert_eq!(socket_path_in(&sockets, &linked).unwrap(), path);
        assert_eq!(fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        let open = folder.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
        let error = socket_path_in(&open, &run).unwrap_err();
        assert!(error.to_string().ends_with("others may enter it (mode 755, it must be 700)"), "{error}");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(socket_path_in(&link, &run).unwrap_err().to_string().ends_with("it is not a folder"));
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        let deep = folder.path().join("x".repeat(90));
        assert!(matches!(socket_path_in(&deep, &run), Err(ControlError::PathTooLong { limit: 107, .. })));
    }
}
