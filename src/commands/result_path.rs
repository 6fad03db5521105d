//! Checks the path of a result before the result is computed.

use std::io;
use std::path::Path;

use crate::advice::Failure;
use crate::record::ResultFile;

/// Checks the path of a result before it is computed.
///
/// # Errors
/// When no file can be written there.
pub(crate) fn check_result_path(path: &Path) -> Result<(), Failure> {
    ResultFile::open(path).map(drop).map_err(|error| result_path_error(path, &error))
}

/// Why a result cannot be written at `path`.
pub(crate) fn result_path_error(path: &Path, error: &io::Error) -> Failure {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        io::ErrorKind::IsADirectory => {
            Failure::usage(format!("{} is a folder", path.display()), "name a file")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !folder.is_dir() => {
            Failure::usage(
                format!("{} is not a folder", folder.display()),
                "create it first, or name a file in another folder",
            )
        }
        _ => Failure::io(path, error),
    }
}
