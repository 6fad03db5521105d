//! The single place where tests can make durable writes fail.
//!
//! Every write, sync and rename of a save or of a preparation of text, every removal of what it has
//! written, and every appended line calls [`Disk::before`] first. In production that does nothing;
//! a test passes a closure that makes an operation fail, panics in its place, or looks at what a
//! power cut would leave at that moment.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file system operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Make a folder.
    CreateFolder,
    /// Write a new file, or a piece of one.
    Write,
    /// Append a line.
    Append,
    /// Sync a file or the names in a folder to disk.
    Sync,
    /// Rename a file or a folder to its final name.
    Rename,
    /// Remove a file or a folder.
    Remove,
}

/// Decides whether an operation on a path may proceed.
type Gate = dyn Fn(Operation, &Path) -> io::Result<()> + Send + Sync;

/// The file system, with failures injected by a test.
#[derive(Clone, Default)]
pub struct Disk {
    gate: Option<Arc<Gate>>,
}

/// A file that is written piece by piece.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Disk {
    /// A file system that calls `gate` before every operation.
    #[must_use]
    pub fn with_gate(
        gate: impl Fn(Operation, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { gate: Some(Arc::new(gate)) }
    }

    /// Asks whether `operation` on `path` may proceed.
    pub(crate) fn before(&self, operation: Operation, path: &Path) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate(operation, path))
    }

    pub(crate) fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::CreateFolder, path)?;
        fs::create_dir(path)
    }

    /// Makes `path` and its missing parents, whose names need not survive a power cut.
    pub(crate) fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::CreateFolder, path)?;
        fs::create_dir_all(path)
    }

    /// Makes an empty file in the place of any other, to be written piece by piece.
    pub(crate) fn create_file(&self, path: &Path) -> io::Result<DiskFile> {
        self.before(Operation::Write, path)?;
        Ok(DiskFile { file: File::create(path)?, path: path.to_owned(), disk: self.clone() })
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.before(Operation::Write, path)?;
        fs::write(path, bytes)
    }

    pub(crate) fn sync(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::Sync, path)?;
        File::open(path)?.sync_all()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Operation::Rename, to)?;
        fs::rename(from, to)
    }

    /// Renames the folder `from` to `to`; an existing `to` is renamed to `from`, so that one of the
    /// two always exists.
    pub(crate) fn exchange(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(Operation::Rename, to)?;
        if !to.exists() {
            return fs::rename(from, to);
        }
        #[cfg(target_os = "linux")]
        if rustix::fs::renameat_with(
            rustix::fs::CWD,
            from,
            rustix::fs::CWD,
            to,
            rustix::fs::RenameFlags::EXCHANGE,
        )
        .is_ok()
        {
            return Ok(());
        }
        // Network file systems and other systems cannot exchange names.
        self.remove_folder(to)?;
        fs::rename(from, to)
    }

    pub(crate) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.before(Operation::Remove, path)?;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl DiskFile {
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.disk.before(Operation::Sync, &self.path)?;
        self.file.sync_all()
    }
}

impl Write for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.before(Operation::Write, &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.gate.is_some() { "Disk with a gate" } else { "Disk" })
    }
}
