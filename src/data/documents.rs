//! Reads documents out of files, one piece at a time.
//!
//! Knows plain text, JSON records and where to cut a long document; never tokens. A file is streamed: memory holds one record
//! or a few pieces. Start at [`DocumentReader::read`].

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use crate::data::{DataError, SourceFile, TextFault, TextFormat};

/// A word of this many bytes is taken for text without spaces, and a piece never holds more bytes per word on average.
const MAX_BYTES_PER_WORD: u64 = 64;

/// How files are split into documents.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOptions {
    /// Field of a JSON record that holds the text.
    pub text_field: String,
    /// Longer documents are cut into pieces.
    pub max_document_words: u64,
    /// Share of broken records that is skipped; 0 means that the first one is an error.
    pub max_bad_records: f64,
}

/// A record without usable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Path of the file.
    pub path: PathBuf,
    /// Which record of the file, counted from 1; in a file of lines, the line.
    pub record: u64,
    /// Whether `record` counts lines.
    pub is_line: bool,
    /// Why it is unusable.
    pub reason: String,
}

/// Counts of what was read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Documents before cutting.
    pub documents: u64,
    /// Documents that were cut.
    pub split_documents: u64,
    /// Bytes of text in all documents.
    pub text_bytes: u64,
    /// JSON records, good and bad.
    pub records: u64,
    /// Records without usable text.
    pub bad_records: u64,
    /// Records whose text is empty; they make no document.
    pub empty_records: u64,
    /// The first record without usable text.
    pub first_bad_record: Option<BadRecord>,
}

/// Receives pieces of documents in order, with the number of bytes of the file that were read so far.
pub(crate) type PieceSink<'a> = dyn FnMut(String, u64) -> Result<(), DataError> + 'a;

/// Reads documents out of files and counts records, documents and bytes.
#[derive(Debug)]
pub struct DocumentReader {
    options: DocumentOptions,
    report: ReadReport,
}

impl DocumentReader {
    /// Starts with nothing read.
    #[must_use]
    pub fn new(options: DocumentOptions) -> Self {
        Self { options, report: ReadReport::default() }
    }

    /// Passes every piece of every document of `file` to `sink`.
    ///
    /// # Errors
    /// When the file cannot be read or is not text, at the first broken record if none is allowed, and what `sink` returns.
    pub fn read(&mut self, file: &SourceFile, sink: &mut PieceSink<'_>) -> Result<(), DataError> {
        let opened = File::open(&file.path).map_err(|error| DataError::reading(&file.path, error))?;
        let bytes = Rc::new(Cell::new(0));
        let mut reader = BufReader::with_capacity(1 << 18, Counted { file: opened, bytes: Rc::clone(&bytes) });
        let mut sink = |piece| sink(piece, bytes.get());
        match file.format {
            TextFormat::Plain => self.read_plain(&file.path, &mut reader, &mut sink),
            TextFormat::JsonLines => self.read_lines(&file.path, &mut reader, &mut sink),
            TextFormat::Json => {
                skip_byte_order_mark(&mut reader).map_err(|error| DataError::reading(&file.path, error))?;
                match first_visible(&mut reader) {
                    Ok(Some(b'[')) => self.read_array(&file.path, &mut reader, &mut sink),
                    Ok(_) => self.read_lines(&file.path, &mut reader, &mut sink),
                    Err(error) => Err(DataError::reading(&file.path, error)),
                }
            }
        }
    }

    /// Counts of what was read so far.
    #[must_use]
    pub fn report(&self) -> &ReadReport {
        &self.report
    }

    /// Counts of everything that was read.
    ///
    /// # Errors
    /// When more records were broken than allowed.
    pub fn finish(self) -> Result<ReadReport, DataError> {
        let limit = self.options.max_bad_records;
        match &self.report {
            ReadReport { bad_records: bad, records, first_bad_record: Some(first), .. } if *bad as f64 > limit * *records as f64 => {
                Err(DataError::TooManyBadRecords { bad: *bad, records: *records, limit, first: first.clone() })
            }
            _ => Ok(self.report),
        }
    }

    fn read_plain(&mut self, path: &Path, reader: &mut impl Read, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut splitter = Splitter::new(self.options.max_document_words);
        let mut chunk = Vec::new();
        // Bytes before `chunk`.
        let mut offset = 0;
        loop {
            let read = reader.by_ref().take(1 << 18).read_to_end(&mut chunk).map_err(|error| DataError::reading(path, error))?;
            let not_text = |at: usize, fault| DataError::NotText { path: path.to_owned(), offset: offset + at as u64, fault };
            let (text, rest) = match std::str::from_utf8(&chunk) {
                Ok(text) => (text, 0),
                // A chunk may end inside a character, the file may not.
                Err(error) if error.error_len().is_none() && read > 0 => {
                    let valid = error.valid_up_to();
                    (std::str::from_utf8(&chunk[..valid]).unwrap_or_default(), chunk.len() - valid)
                }
                Err(error) => return Err(not_text(error.valid_up_to(), TextFault::NotUtf8)),
            };
            if let Some(at) = text.bytes().position(|byte| byte == 0) {
                return Err(not_text(at, TextFault::Nul));
            }
            splitter.push(text, sink)?;
            offset += text.len() as u64;
            chunk.drain(..chunk.len() - rest);
            if read == 0 {
                break;
            }
        }
        self.end_document(splitter, sink)
    }

    fn read_lines(&mut self, path: &Path, reader: &mut impl BufRead, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        skip_byte_order_mark(reader).map_err(|error| DataError::reading(path, error))?;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|error| DataError::reading(path, error))? == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = serde_json::from_slice(&line).map_err(|error| without_place(&error)).and_then(|record| self.text_of(record));
            self.take_record(text, sink, |reason| BadRecord { path: path.to_owned(), record: number, is_line: true, reason })?;
        }
        Ok(())
    }

    fn read_array(&mut self, path: &Path, reader: &mut impl BufRead, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut failure = None;
        let mut number = 0;
        let mut take = |record: Value| {
            number += 1;
            let text = self.text_of(record);
            self.take_record(text, sink, |reason| BadRecord { path: path.to_owned(), record: number, is_line: false, reason })
        };
        let mut json = serde_json::Deserializer::from_reader(reader);
        let read = Elements { take: &mut take, failure: &mut failure }.deserialize(&mut json).and_then(|()| json.end());
        match (failure, read) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) if error.is_io() => Err(DataError::reading(path, error.into())),
            (None, Err(error)) => {
                Err(DataError::BrokenJson { path: path.to_owned(), line: error.line(), column: error.column(), reason: without_place(&error) })
            }
        }
    }

    /// The text of one record, or what is wrong with it.
    fn text_of(&self, record: Value) -> Result<String, String> {
        let field = &self.options.text_field;
        match record {
            Value::String(text) => Ok(text),
            Value::Object(mut fields) => match fields.remove(field) {
                Some(Value::String(text)) => Ok(text),
                Some(other) => Err(format!("field {field:?} is {}, not a string", kind(&other))),
                None => {
                    let names: Vec<String> = fields.keys().take(5).map(|name| format!("{name:?}")).collect();
                    Err(format!("there is no field {field:?}, only {}", if names.is_empty() { "{}".into() } else { names.join(", ") }))
                }
            },
            other => Err(format!("the record is {}, not an object", kind(&other))),
        }
    }

    fn take_record(
        &mut self,
        text: Result<String, String>,
        sink: &mut dyn FnMut(String) -> Result<(), DataError>,
        bad_record: impl FnOnce(String) -> BadRecord,
    ) -> Result<(), DataError> {
        self.report.records += 1;
        match text {
            Ok(text) if text.is_empty() => {
                self.report.empty_records += 1;
                Ok(())
            }
            Ok(text) => {
                let mut splitter = Splitter::new(self.options.max_document_words);
                splitter.push(&text, sink)?;
                self.end_document(splitter, sink)
            }
            Err(reason) => {
                self.report.bad_records += 1;
                let bad = bad_record(reason);
                let first = self.report.first_bad_record.get_or_insert(bad).clone();
                let ReadReport { bad_records: bad, records, .. } = self.report;
                if self.options.max_bad_records > 0.0 { Ok(()) } else { Err(DataError::TooManyBadRecords { bad, records, limit: 0.0, first }) }
            }
        }
    }

    fn end_document(&mut self, mut splitter: Splitter, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        splitter.finish(sink)?;
        self.report.documents += 1;
        self.report.split_documents += u64::from(splitter.pieces > 1);
        self.report.text_bytes += splitter.bytes;
        Ok(())
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, record, is_line, reason } = self;
        let path = path.display();
        if *is_line { write!(f, "{path}:{record}: {reason}") } else { write!(f, "{path}, record {record}: {reason}") }
    }
}

/// Cuts a document into pieces of at most `max_words` words; the pieces together are the document.
struct Splitter {
    max_words: u64,
    max_bytes: usize,
    /// Text not passed on yet, and how much of it was scanned.
    buffer: String,
    scanned: usize,
    /// Words begun in the buffer before `scanned`.
    words: u64,
    in_word: bool,
    /// Where the last white space before `scanned` begins.
    gap: usize,
    pieces: u64,
    bytes: u64,
}

impl Splitter {
    fn new(max_words: u64) -> Self {
        let max_words = max_words.max(1);
        let max_bytes = usize::try_from(max_words.saturating_mul(MAX_BYTES_PER_WORD)).unwrap_or(usize::MAX);
        Self { max_words, max_bytes, buffer: String::new(), scanned: 0, words: 0, in_word: false, gap: 0, pieces: 0, bytes: 0 }
    }

    /// Takes the next part of the document and passes on the pieces that are complete.
    ///
    /// A cut is made before the white space in front of the next word, since byte-level vocabularies know words with their space.
    fn push(&mut self, text: &str, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        let before = self.scanned;
        self.buffer.push_str(text);
        self.bytes += text.len() as u64;
        let mut start = 0;
        for (at, c) in self.buffer[before..].char_indices() {
            let at = before + at;
            let begins_word = !c.is_whitespace() && !self.in_word;
            let cut = if begins_word && self.words == self.max_words {
                Some(self.gap)
            } else if at - start >= self.max_bytes {
                Some(at)
            } else {
                None
            };
            if let Some(cut) = cut {
                sink(self.buffer[start..cut].to_owned())?;
                self.pieces += 1;
                start = cut;
                self.words = u64::from(self.in_word && !c.is_whitespace());
            }
            if c.is_whitespace() {
                self.gap = at;
            }
            self.words += u64::from(begins_word);
            self.in_word = !c.is_whitespace();
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
        self.gap = self.gap.saturating_sub(start);
        Ok(())
    }

    fn finish(&mut self, sink: &mut dyn FnMut(String) -> Result<(), DataError>) -> Result<(), DataError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.pieces += 1;
        sink(std::mem::take(&mut self.buffer))
    }
}

/// Counts the bytes that were read from a file.
struct Counted {
    file: File,
    bytes: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(out)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Passes on the elements of a JSON array one by one.
struct Elements<'a> {
    take: &'a mut dyn FnMut(Value) -> Result<(), DataError>,
    /// Error of `take`, which ends the reading.
    failure: &'a mut Option<DataError>,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(record) = array.next_element()? {
            if let Err(failure) = (self.take)(record) {
                *self.failure = Some(failure);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

fn skip_byte_order_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    Ok(())
}

/// The first byte that is not white space, which stays in the reader.
fn first_visible(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        let blank = buffer.iter().take_while(|byte| byte.is_ascii_whitespace() && **byte != b'\n').count();
        match buffer.get(blank) {
            // Line breaks are left where they are, so that lines keep their numbers.
            Some(b'\n') => return Ok(buffer.trim_ascii_start().first().copied()),
            Some(byte) => return Ok(Some(*byte)),
            None if buffer.is_empty() => return Ok(None),
            None => reader.consume(blank),
        }
    }
}

/// The message of a JSON error; without its position, which the caller reports.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(message, _)| message.to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
