//! Files of a checkpoint, hashed while they are written and while they are read.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::checkpoint::CheckpointError;
use crate::record::files::open_regular;

/// Bytes hashed between two checks of the stop flag: some tens of milliseconds.
const PIECE: u64 = 16 << 20;
/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// Size and hash of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Size in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content, in hex.
    pub blake3: String,
}

/// A new file that is hashed while it is written; a stop fails the next write.
pub struct HashedWriter<'a> {
    path: &'a Path,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    stop: &'a dyn Fn() -> bool,
}

/// A file that is hashed while it is read; a stop fails the next read.
pub struct HashedReader<'a> {
    path: &'a Path,
    bytes: u64,
    file: File,
    hasher: blake3::Hasher,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> HashedWriter<'a> {
    pub(super) fn create(path: &'a Path, stop: &'a dyn Fn() -> bool) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER, File::create(path)?);
        Ok(Self { path, file, hasher: blake3::Hasher::new(), stop })
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Brings everything to the disk; returns size and hash of the file.
    pub(super) fn sync(self) -> io::Result<FileEntry> {
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(entry(&self.hasher))
    }
}

impl Write for HashedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        check(self.stop)?;
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<'a> HashedReader<'a> {
    pub(super) fn open(path: &'a Path, stop: &'a dyn Fn() -> bool) -> io::Result<Self> {
        let file = open_regular(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, bytes, file, hasher: blake3::Hasher::new(), stop })
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Size of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads what is left; returns the hash of the file.
    pub(super) fn finish(mut self) -> Result<String, CheckpointError> {
        loop {
            if (self.stop)() {
                return Err(CheckpointError::Interrupted);
            }
            let before = self.hasher.count();
            let piece = (&mut self.file).take(PIECE);
            self.hasher.update_reader(piece).map_err(CheckpointError::at(self.path))?;
            if self.hasher.count() == before {
                return Ok(entry(&self.hasher).blake3);
            }
        }
    }
}

impl Read for HashedReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        check(self.stop)?;
        let count = self.file.read(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }
}

/// Fails after a stop; not as `Interrupted`, after which callers try again.
fn check(stop: &dyn Fn() -> bool) -> io::Result<()> {
    if stop() { Err(io::Error::other("the run was told to end")) } else { Ok(()) }
}

fn entry(hasher: &blake3::Hasher) -> FileEntry {
    FileEntry { bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() }
}
