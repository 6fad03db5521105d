//! Where an engine listens, and a listener that is restored if its file is removed.
//!
//! Sockets are in a private folder below the system's temporary directory; if that cannot be used,
//! in the run directory. `XDG_RUNTIME_DIR` would be the usual place, but it is removed at the last
//! logout, which is exactly when an engine must stay reachable.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use tokio::net::UnixListener;

use crate::control::ControlError;
use crate::record::RunDirectory;

/// Size of a socket address on Linux in bytes, including the terminating zero.
const ADDRESS_BYTES: usize = 108;

/// A listener and its file.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    pub listener: UnixListener,
    place: SocketFile,
    inode: u64,
}

/// Location of a socket file.
#[derive(Debug, Clone)]
struct SocketFile {
    path: PathBuf,
    /// Whether its folder is the run directory and not the folder for sockets.
    in_run_directory: bool,
}

/// Listens for the engine of `directory`: in the folder for sockets, else in the run directory; in
/// that case also returns why the folder is not usable.
///
/// # Errors
/// When neither can be used.
pub(crate) fn listen(
    directory: &RunDirectory,
) -> Result<(BoundSocket, Option<ControlError>), ControlError> {
    let problem = match socket_path(directory)
        .and_then(|path| BoundSocket::bind(SocketFile { path, in_run_directory: false }))
    {
        Ok(socket) => return Ok((socket, None)),
        Err(problem) => problem,
    };
    match socket_path_beside_files(directory)
        .and_then(|path| BoundSocket::bind(SocketFile { path, in_run_directory: true }))
    {
        Ok(socket) => Ok((socket, Some(problem))),
        Err(second) => {
            Err(ControlError::NoSocket { first: Box::new(problem), second: Box::new(second) })
        }
    }
}

/// Socket path of the engine of `directory`: in `$PATCHTUI_SOCKET_DIR`, else in a private temporary
/// folder.
///
/// Clients read the path from the run's `engine.json`, so that they need not share the engine's
/// environment.
pub fn socket_path(directory: &RunDirectory) -> Result<PathBuf, ControlError> {
    let folder = match std::env::var_os("PATCHTUI_SOCKET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join(format!("patchtui-{}", getuid().as_raw())),
    };
    socket_path_in(&folder, directory)
}

/// The same in a given folder, which is created if missing and refused if others can enter it.
pub fn socket_path_in(folder: &Path, directory: &RunDirectory) -> Result<PathBuf, ControlError> {
    make_private(folder)?;
    short_enough(folder.join(format!("{}.sock", directory.id())))
}

/// In the run directory itself, which is refused if others could replace the socket there.
fn socket_path_beside_files(directory: &RunDirectory) -> Result<PathBuf, ControlError> {
    check_own(directory.path())?;
    short_enough(directory.engine_socket())
}

fn short_enough(path: PathBuf) -> Result<PathBuf, ControlError> {
    if temporary_name(&path).as_os_str().len() < ADDRESS_BYTES {
        Ok(path)
    } else {
        Err(ControlError::PathTooLong { path, limit: ADDRESS_BYTES - 1 })
    }
}

/// Refuses a run directory of another user, or one that everyone may write to. Its group may write:
/// both sides of a connection check each other's user.
fn check_own(folder: &Path) -> Result<(), ControlError> {
    let refuse =
        |problem: String| ControlError::SocketFolder { path: folder.to_path_buf(), problem };
    let metadata = fs::metadata(folder).map_err(|error| refuse(error.to_string()))?;
    if metadata.uid() != getuid().as_raw() {
        return Err(refuse(format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o002 != 0 {
        return Err(refuse(format!(
            "it is writable by everyone (mode {:o})",
            metadata.mode() & 0o777
        )));
    }
    Ok(())
}

fn make_private(folder: &Path) -> Result<(), ControlError> {
    let refuse =
        |problem: String| ControlError::SocketFolder { path: folder.to_path_buf(), problem };
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refuse(error.to_string()));
        }
        Ok(()) | Err(_) => {}
    }
    // Another user who creates the folder first in a shared directory could intercept connections,
    // also through a link.
    let metadata = fs::symlink_metadata(folder).map_err(|error| refuse(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(refuse("it is not a folder".into()));
    }
    if metadata.uid() != getuid().as_raw() {
        return Err(refuse(format!("it belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "other users have access to it (mode {:o}, it must be 700)",
            metadata.mode() & 0o777
        )));
    }
    Ok(())
}

fn temporary_name(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.tmp", std::process::id()))
}

impl BoundSocket {
    /// Listens at `place`; an existing file is a leftover, since the caller holds the run's lock.
    fn bind(place: SocketFile) -> Result<Self, ControlError> {
        Self::try_bind(&place.path)
            .map(|(listener, inode)| Self { listener, place: place.clone(), inode })
            .map_err(|source| ControlError::Listen { path: place.path, source })
    }

    fn try_bind(path: &Path) -> io::Result<(UnixListener, u64)> {
        let temporary = temporary_name(path);
        let _ = fs::remove_file(&temporary);
        let listener = UnixListener::bind(&temporary)?;
        // The sticky bit asks cleaners of temporary files to keep the socket.
        fs::set_permissions(&temporary, Permissions::from_mode(0o1700))?;
        let inode = fs::symlink_metadata(&temporary)?.ino();
        fs::rename(&temporary, path)?;
        Ok((listener, inode))
    }

    /// Path of the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Whether clients that use the path reach this listener.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Puts a new listener at the same path; existing connections are not affected.
    pub(crate) fn bind_again(&mut self) -> Result<(), ControlError> {
        if let Some(folder) = self.path().parent() {
            if self.place.in_run_directory { check_own(folder)? } else { make_private(folder)? }
        }
        *self = Self::bind(self.place.clone())?;
        Ok(())
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(self.path());
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
        assert!(
            error.to_string().ends_with("other users have access to it (mode 755, it must be 700)"),
            "{error}"
        );
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(
            socket_path_in(&link, &run).unwrap_err().to_string().ends_with("it is not a folder")
        );
    }

    #[test]
    fn a_run_directory_that_everybody_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        let with_mode =
            |mode| fs::set_permissions(run.path(), Permissions::from_mode(mode)).unwrap();
        with_mode(0o775);
        assert_eq!(socket_path_beside_files(&run).unwrap(), run.engine_socket());
        with_mode(0o777);
        let error = socket_path_beside_files(&run).unwrap_err();
        assert!(error.to_string().ends_with("it is writable by everyone (mode 777)"), "{error}");
    }

    #[test]
    fn a_path_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        let deep = folder.path().join("x".repeat(90));
        assert!(matches!(
            socket_path_in(&deep, &run),
            Err(ControlError::PathTooLong { limit: 107, .. })
        ));
    }
}
