//! Reads the files of a run: all records in order, or only what a list of runs needs.
//!
//! A torn last line is treated as the end of its file, since it may still be being written. A bad
//! line elsewhere is counted, reported and skipped. Start at [`History::read`].

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::path::PathBuf;

use crate::record::files::open_regular;
use crate::record::{History, LineFile, Record, RunDirectory, lines};

/// Bad lines that are described; others are only counted.
const DESCRIBED: usize = 3;
/// Bytes at the end of a file that are searched for its last line.
const TAIL: u64 = 256 * 1024;
/// Maximum length of a line in bytes; a longer one is a broken line and is skipped without being
/// stored.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;

/// Result of reading, apart from the records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Highest sequence number.
    pub last_seq: u64,
    /// Newest attempt; 0 if there is none.
    pub attempt: u32,
    /// Number of lines skipped.
    pub num_bad_lines: u64,
    /// The first few of them.
    pub bad_lines: Vec<BadLine>,
}

/// A line that is not a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// File that holds the line.
    pub path: PathBuf,
    /// Line number, counted from 1.
    pub line: u64,
    /// Why it is not a record.
    pub reason: String,
}

struct LineReader {
    kind: LineFile,
    path: PathBuf,
    file: Option<BufReader<Take<File>>>,
    line: u64,
    next: Option<Record>,
}

impl History {
    /// Applies the records in the files of `directory`; a run without files has an empty history.
    pub fn read(directory: &RunDirectory) -> io::Result<(Self, ReadReport)> {
        let mut history = Self::default();
        let report = read_records(directory, |record| history.apply(&record))?;
        Ok((history, report))
    }
}

/// Passes every record of `directory` to `each`, ordered by `seq` across all files.
pub fn read_records(directory: &RunDirectory, each: impl FnMut(Record)) -> io::Result<ReadReport> {
    read_kinds(directory, &LineFile::ALL, each)
}

/// The same, for files of some `kinds` only.
pub(crate) fn read_kinds(
    directory: &RunDirectory,
    kinds: &[LineFile],
    mut each: impl FnMut(Record),
) -> io::Result<ReadReport> {
    let mut report = ReadReport::default();
    let mut readers = Vec::new();
    for kind in kinds {
        let mut reader = LineReader::open(*kind, directory)?;
        reader.advance(&mut report)?;
        readers.push(reader);
    }
    // Each file is already in order, so only the next records of the files need comparing.
    while let Some(reader) = readers
        .iter_mut()
        .filter(|reader| reader.next.is_some())
        .min_by_key(|reader| reader.next.as_ref().map(|record| record.seq))
    {
        let Some(record) = reader.next.take() else { break };
        reader.advance(&mut report)?;
        report.last_seq = report.last_seq.max(record.seq);
        report.attempt = report.attempt.max(record.attempt);
        each(record);
    }
    Ok(report)
}

/// The last record of one file, found from its end.
#[must_use]
pub fn last_record(kind: LineFile, directory: &RunDirectory) -> Option<Record> {
    let mut file = open_regular(&kind.path(directory)).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let whole = &tail[..=tail.iter().rposition(|byte| *byte == b'\n')?];
    whole
        .rsplit(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .find_map(|line| lines::decode(kind, line).ok())
}

/// The history from `events.jsonl` alone, which stays small even in the longest run.
pub(crate) fn read_events(directory: &RunDirectory) -> io::Result<History> {
    let mut history = History::default();
    read_kinds(directory, &[LineFile::Events], |record| history.apply(&record))?;
    Ok(history)
}

impl ReadReport {
    /// The bad lines as one sentence, if there are any.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let first = self.bad_lines.first()?;
        let name = first.path.file_name().unwrap_or_default().to_string_lossy();
        let lines = if self.num_bad_lines == 1 {
            "1 broken line was".to_owned()
        } else {
            format!("{} broken lines were", self.num_bad_lines)
        };
        Some(format!(
            "{lines} skipped while reading the run, the first at {name}:{}: {}",
            first.line, first.reason
        ))
    }
}

impl LineReader {
    fn open(kind: LineFile, directory: &RunDirectory) -> io::Result<Self> {
        let path = kind.path(directory);
        let file = match open_regular(&path) {
            Ok(file) => {
                // Up to the current length, so that reading ends however fast the engine writes.
                let length = file.metadata()?.len();
                Some(BufReader::new(file.take(length)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { kind, path, file, line: 0, next: None })
    }

    /// Moves to the next record, skipping bad lines.
    fn advance(&mut self, report: &mut ReadReport) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = Vec::new();
        loop {
            line.clear();
            self.line += 1;
            file.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            let reason = if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
                if !skip_line(file)? {
                    return Ok(());
                }
                format!("longer than {LONGEST_LINE} bytes")
            } else if line.last() != Some(&b'\n') {
                return Ok(());
            } else {
                match lines::decode(self.kind, &line) {
                    Ok(record) => {
                        self.next = Some(record);
                        return Ok(());
                    }
                    Err(error) => error.to_string(),
                }
            };
            report.num_bad_lines += 1;
            if report.bad_lines.len() < DESCRIBED {
                report.bad_lines.push(BadLine { path: self.path.clone(), line: self.line, reason });
            }
        }
    }
}

/// Skips the rest of a line without storing it. Returns whether the line had an end.
fn skip_line(file: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let piece = file.fill_buf()?;
        let (length, has_ended) = match piece.iter().position(|byte| *byte == b'\n') {
            Some(idx) => (idx + 1, true),
            None => (piece.len(), false),
        };
        if length == 0 {
            return Ok(false);
        }
        file.consume(length);
        if has_ended {
            return Ok(true);
        }
    }
}
