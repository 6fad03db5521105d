//! The disk of the runs: whether it is writable, its free space, its file system.
//!
//! Creates nothing. Start at [`Storage::of`].

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs, statvfs};
use serde::Serialize;

/// Network file systems: their numbers in statfs(2), and their names.
const NETWORK: [(i64, &str); 5] = [
    (0x6969, "NFS"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

/// Where runs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// The folder of runs, absolute.
    pub folder: PathBuf,
    /// Why it is not writable; no full stop.
    pub problem: Option<String>,
    /// Bytes that this user can still write there.
    pub free: Option<u64>,
    /// The name of a network file system.
    pub network: Option<&'static str>,
}

impl Storage {
    /// Examines `folder`, or its nearest parent that exists.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let there = folder.ancestors().find(|part| part.exists()).unwrap_or(Path::new("/"));
        let problem = match access(there, Access::WRITE_OK | Access::EXEC_OK) {
            _ if !there.is_dir() => Some(format!("{} is not a folder", there.display())),
            Err(error) => Some(format!(
                "{} cannot be written: {}",
                there.display(),
                std::io::Error::from(error)
            )),
            Ok(()) => None,
        };
        let free = statvfs(there).ok().map(|space| space.f_bavail.saturating_mul(space.f_frsize));
        let kind = statfs(there).ok().map(|space| space.f_type);
        let network =
            NETWORK.iter().find(|(number, _)| kind == Some(*number)).map(|(_, name)| *name);
        Self { folder, problem, free, network }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_stands_for_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::of(&folder.path().join("new/runs"));
        assert_eq!((storage.problem, storage.folder), (None, folder.path().join("new/runs")));
        assert!(storage.free.is_some());
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is created");
    }

    #[test]
    fn a_file_in_its_place_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("runs"), "").unwrap();
        let problem = Storage::of(&folder.path().join("runs/books")).problem.unwrap();
        assert!(problem.ends_with("runs is not a folder"), "{problem}");
    }
}
