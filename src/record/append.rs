//! Appends lines to the files of a run, and keeps them in memory while the disk refuses them.
//!
//! A line is written completely or not at all: a line torn by a crash is removed before the next
//! one is appended, and a line torn by a full disk is removed at once. Nothing here panics or stops
//! a run. Start at [`RunLog::append`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::disk::{Disk, Operation};
use crate::record::files::{append_regular, is_same, open_regular};
use crate::record::{FileEntry, LineFile, LineHashes, RunDirectory};

/// Maximum number of lines per file that wait for the disk; at some hundred bytes each this is tens
/// of megabytes.
const MAX_WAITING: usize = 100_000;

/// The files of a run, open for appending.
#[derive(Debug)]
pub struct RunLog {
    files: [Appender; LineFile::ALL.len()],
    failing: bool,
    disk: Disk,
    /// The run directory, held open: files are reopened only in it, not in another directory of
    /// the same name.
    directory: Option<File>,
    path: PathBuf,
}

/// A change in whether the disk accepts lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskChange {
    /// Writing fails; lines are kept in memory from now on.
    Failing {
        /// The file that could not be written.
        path: PathBuf,
        /// Operating system error, as text.
        reason: String,
    },
    /// All lines are written.
    Recovered {
        /// Lines that had to wait and are now written.
        waited: usize,
        /// Lines that were dropped because too many were waiting.
        dropped: u64,
    },
}

/// A file of the run cannot be opened for appending.
#[derive(Debug, Error)]
#[error("cannot append to {path}: {source}")]
pub struct LogError {
    /// Path of the file.
    pub path: PathBuf,
    /// Operating system error.
    pub source: io::Error,
}

#[derive(Debug)]
struct Appender {
    path: PathBuf,
    /// `None` after a failure: reopening it also helps when a network file system has come back.
    file: Option<File>,
    /// Length of the complete lines, in bytes.
    end: u64,
    /// Hash of these bytes.
    hasher: blake3::Hasher,
    waiting: VecDeque<String>,
    dropped: u64,
    /// Whether lines were written that may not be synced yet.
    is_dirty: bool,
}

impl Advice for LogError {
    fn hint(&self, _: Audience<'_>) -> String {
        "check that the run directory is writable and that its disk has space".into()
    }
}

impl RunLog {
    /// Opens the files of `directory` and removes torn last lines; also returns the files that had
    /// one.
    pub fn open(directory: &RunDirectory) -> Result<(Self, Vec<PathBuf>), LogError> {
        Self::open_on(directory, Disk::default())
    }

    /// The same on a file system that can fail.
    pub fn open_on(directory: &RunDirectory, disk: Disk) -> Result<(Self, Vec<PathBuf>), LogError> {
        let mut torn = Vec::new();
        let mut files = LineFile::ALL.map(|file| Appender::new(file.path(directory)));
        for file in &mut files {
            match file.reopen() {
                Ok(true) => torn.push(file.path.clone()),
                Ok(false) => {}
                Err(source) => return Err(LogError { path: file.path.clone(), source }),
            }
        }
        let path = directory.path().to_owned();
        Ok((Self { files, failing: false, disk, directory: File::open(&path).ok(), path }, torn))
    }

    /// Appends `line`, which ends with a line feed, and all waiting lines; reports when writing
    /// starts to fail or works again.
    pub fn append(&mut self, file: LineFile, line: String) -> Option<DiskChange> {
        if let Some(appender) = self.files.get_mut(file as usize) {
            appender.push(line);
        }
        self.flush()
    }

    /// Tries to write the waiting lines.
    pub fn flush(&mut self) -> Option<DiskChange> {
        let waited = self.files.iter().map(|file| file.waiting.len()).sum();
        let mut failure = None;
        // Checked only when needed: most of the time all files are open.
        let is_here = || is_same(self.directory.as_ref(), &self.path).unwrap_or(false);
        for file in &mut self.files {
            let flushed = if file.file.is_none() && !file.waiting.is_empty() && !is_here() {
                Err(io::Error::new(io::ErrorKind::NotFound, "the run directory no longer exists"))
            } else {
                file.flush(&self.disk)
            };
            if let Err(error) = flushed {
                failure = Some(DiskChange::Failing {
                    path: file.path.clone(),
                    reason: error.to_string(),
                });
            }
        }
        match (self.failing, failure) {
            (false, Some(failure)) => {
                self.failing = true;
                Some(failure)
            }
            (true, None) => {
                self.failing = false;
                let dropped =
                    self.files.iter_mut().map(|file| std::mem::take(&mut file.dropped)).sum();
                Some(DiskChange::Recovered { waited, dropped })
            }
            (false, None) | (true, Some(_)) => None,
        }
    }

    /// Size and hash of each file, once all its lines are written.
    #[must_use]
    pub fn hashes(&self) -> LineHashes {
        let entry = |file: &Appender| FileEntry {
            bytes: file.hasher.count(),
            blake3: file.hasher.finalize().to_hex().to_string(),
        };
        let name = |file: &Appender| {
            file.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        self.files.iter().map(|file| (name(file), entry(file))).collect()
    }

    /// Syncs everything to disk.
    ///
    /// # Errors
    /// When lines still wait in memory, or syncing fails.
    pub fn sync(&mut self) -> io::Result<()> {
        for appender in &mut self.files {
            let number = appender.waiting.len();
            if number > 0 {
                let lines = if number == 1 { "line" } else { "lines" };
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    format!("{number} {lines} of {} not yet written", appender.path.display()),
                ));
            }
            if let Some(file) = appender.file.as_ref().filter(|_| appender.is_dirty) {
                self.disk.before(Operation::Sync, &appender.path)?;
                file.sync_data()?;
                appender.is_dirty = false;
            }
        }
        Ok(())
    }
}

impl Appender {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            end: 0,
            hasher: blake3::Hasher::new(),
            waiting: VecDeque::new(),
            dropped: 0,
            is_dirty: false,
        }
    }

    fn push(&mut self, line: String) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(line);
    }

    fn flush(&mut self, disk: &Disk) -> io::Result<()> {
        if self.file.is_none() && !self.waiting.is_empty() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        while let Some(line) = self.waiting.front() {
            // One write(2), unless the disk takes only a part; writing the rest then returns the
            // actual error.
            self.is_dirty = true;
            if let Err(error) = disk
                .before(Operation::Append, &self.path)
                .and_then(|()| file.write_all(line.as_bytes()))
            {
                // If this fails too, reopening the file removes the partial line.
                let _ = file.set_len(self.end);
                self.file = None;
                return Err(error);
            }
            self.end += line.len() as u64;
            self.hasher.update(line.as_bytes());
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<bool> {
        let (file, end, torn) = open_at_line_end(&self.path)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(open_regular(&self.path)?.take(end))?;
        (self.file, self.end, self.hasher) = (Some(file), end, hasher);
        Ok(torn)
    }
}

/// Opens `path` for appending after its last complete line, and removes what follows that line.
fn open_at_line_end(path: &Path) -> io::Result<(File, u64, bool)> {
    let mut file = append_regular(path)?;
    let length = file.metadata()?.len();
    let end = line_end_before(&mut file, length)?;
    if end < length {
        file.set_len(end)?;
    }
    Ok((file, end, end < length))
}

/// End of the last complete line within the first `length` bytes.
fn line_end_before(file: &mut File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; 64 * 1024];
    let mut block_end = length;
    while block_end > 0 {
        let block_start = block_end.saturating_sub(block.len() as u64);
        let part = &mut block[..(block_end - block_start) as usize];
        file.seek(SeekFrom::Start(block_start))?;
        file.read_exact(part)?;
        if let Some(idx) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(block_start + idx as u64 + 1);
        }
        block_end = block_start;
    }
    Ok(0)
}
