//! Reads documents out of files, one piece at a time.
//!
//! Handles plain text, JSON records, and the cutting of long documents. Files are streamed: memory
//! holds one record or a few pieces. Start at [`DocumentReader::read`].

mod json;
mod split;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::data::documents::json::{
    Elements, Lenient, first_visible, is_spread, parse, skip_byte_order_mark, without_place,
};
use crate::data::documents::split::{Pieces, Splitter};
use crate::data::text::TextDecoder;
use crate::data::{BadRecord, DataError, SourceFile, TextFormat, TextRules};
use crate::text::format::counted;

pub use split::Piece;

/// How files are split into documents.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentOptions {
    /// Field of a JSON record that holds the text.
    pub text_field: String,
    /// Longer documents are cut into pieces.
    pub max_document_words: u64,
    /// Maximum share of unusable records, which are skipped; 0 means that the first one is an
    /// error.
    pub max_bad_records: f64,
    /// Bytes that two pieces share on each side of the cut between them; with 0 each piece is a
    /// separate document.
    pub reach: usize,
    /// Rules by which a file is read.
    pub rules: TextRules,
}

/// Counts of what was read so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DocumentCounts {
    /// Documents before cutting.
    pub documents: u64,
    /// Documents that were cut.
    pub split_documents: u64,
    /// Bytes of text in all documents.
    pub text_bytes: u64,
    /// JSON records, usable or not.
    pub records: u64,
    /// Records without usable text.
    pub bad_records: u64,
    /// Records whose text is empty; they make no document.
    pub empty_records: u64,
    /// The first record without usable text.
    pub first_bad_record: Option<BadRecord>,
    /// Carriage returns of text files that were read as line feeds.
    pub carriage_returns: u64,
    /// Text files that contain carriage returns.
    pub files_with_carriage_returns: u64,
}

/// Receives pieces of documents in order, with the number of bytes read from the file so far.
pub(crate) type PieceSink<'a> = dyn FnMut(Piece, u64) -> Result<(), DataError> + 'a;

/// Reads documents out of files and counts records, documents and bytes.
#[derive(Debug)]
pub struct DocumentReader {
    options: DocumentOptions,
    report: DocumentCounts,
}

impl DocumentCounts {
    /// What was skipped or changed, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = &self.first_bad_record {
            notes.push(format!(
                "skipped {} of {} records as unusable; first: {first}",
                self.bad_records, self.records
            ));
        }
        if self.empty_records > 0 {
            notes.push(format!(
                "skipped {} of {} records without text",
                self.empty_records, self.records
            ));
        }
        if self.carriage_returns > 0 {
            let files = counted(self.files_with_carriage_returns, "file");
            notes.push(format!(
                "line ends converted from CRLF to LF: {} in {files}",
                self.carriage_returns
            ));
        }
        notes
    }
}

impl DocumentReader {
    /// Starts with nothing read.
    #[must_use]
    pub fn new(options: DocumentOptions) -> Self {
        Self { options, report: DocumentCounts::default() }
    }

    /// Passes every piece of every document of `file` to `sink`.
    ///
    /// # Errors
    /// When the file cannot be read or is not text, at the first unusable record if none is
    /// allowed, and errors of `sink`.
    pub fn read(&mut self, file: &SourceFile, sink: &mut PieceSink<'_>) -> Result<(), DataError> {
        let opened =
            File::open(&file.path).map_err(|error| DataError::reading(&file.path, error))?;
        let bytes = Rc::new(Cell::new(0));
        let mut reader =
            BufReader::with_capacity(1 << 18, Counted { file: opened, bytes: Rc::clone(&bytes) });
        let mut sink = |piece| sink(piece, bytes.get());
        match file.format {
            TextFormat::Plain => self.read_plain(&file.path, &mut reader, &mut sink),
            TextFormat::JsonLines if self.is_spread(file)? => {
                self.read_spread(&file.path, &mut reader, &mut sink)
            }
            TextFormat::JsonLines => self.read_lines(&file.path, &mut reader, &mut sink),
            TextFormat::Json => {
                skip_byte_order_mark(&mut reader)
                    .map_err(|error| DataError::reading(&file.path, error))?;
                match first_visible(&mut reader) {
                    Ok(Some(b'[')) => self.read_array(&file.path, &mut reader, &mut sink),
                    Ok(_) if self.is_spread(file)? => {
                        self.read_spread(&file.path, &mut reader, &mut sink)
                    }
                    Ok(_) => self.read_lines(&file.path, &mut reader, &mut sink),
                    Err(error) => Err(DataError::reading(&file.path, error)),
                }
            }
        }
    }

    fn is_current(&self) -> bool {
        self.options.rules > TextRules::First
    }

    fn is_spread(&self, file: &SourceFile) -> Result<bool, DataError> {
        Ok(self.is_current() && is_spread(&file.path)?)
    }

    /// Counts of what was read so far.
    #[must_use]
    pub fn report(&self) -> &DocumentCounts {
        &self.report
    }

    /// Counts of everything that was read.
    ///
    /// # Errors
    /// When there are more unusable records than allowed.
    pub fn finish(self) -> Result<DocumentCounts, DataError> {
        let limit = self.options.max_bad_records;
        match &self.report {
            DocumentCounts { bad_records: bad, records, first_bad_record: Some(first), .. }
                if *bad as f64 > limit * *records as f64 =>
            {
                Err(DataError::TooManyBadRecords {
                    bad: *bad,
                    records: *records,
                    limit,
                    first: first.clone(),
                })
            }
            _ => Ok(self.report),
        }
    }

    fn read_plain(
        &mut self,
        path: &Path,
        reader: &mut impl Read,
        sink: &mut Pieces<'_>,
    ) -> Result<(), DataError> {
        let (mut splitter, mut decoder) = (self.splitter(), TextDecoder::new(self.options.rules));
        let mut chunk = Vec::new();
        loop {
            let read = reader
                .by_ref()
                .take(1 << 18)
                .read_to_end(&mut chunk)
                .map_err(|error| DataError::reading(path, error))?;
            let not_text = |(offset, fault)| DataError::NotText {
                path: path.to_owned(),
                offset: offset as u64,
                fault,
            };
            splitter.push(&decoder.decode(&mut chunk, read == 0).map_err(not_text)?, sink)?;
            if read == 0 {
                break;
            }
        }
        self.report.carriage_returns += decoder.carriage_returns;
        self.report.files_with_carriage_returns += u64::from(decoder.carriage_returns > 0);
        self.end_document(splitter, sink)
    }

    fn read_lines(
        &mut self,
        path: &Path,
        reader: &mut impl BufRead,
        sink: &mut Pieces<'_>,
    ) -> Result<(), DataError> {
        skip_byte_order_mark(reader).map_err(|error| DataError::reading(path, error))?;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader
                .read_until(b'\n', &mut line)
                .map_err(|error| DataError::reading(path, error))?
                == 0
            {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = parse(&line, self.is_current()).and_then(|record| self.text_of(record));
            self.take_record(text, sink, |reason| BadRecord {
                path: path.to_owned(),
                record: number,
                is_line: true,
                reason,
            })?;
        }
        Ok(())
    }

    fn read_array(
        &mut self,
        path: &Path,
        reader: &mut impl Read,
        sink: &mut Pieces<'_>,
    ) -> Result<(), DataError> {
        // The first rules rejected files with NaN, so no run has one.
        let reader = BufReader::new(Lenient::new(reader));
        let mut failure = None;
        let mut number = 0;
        let mut take = |record: Value| {
            number += 1;
            let text = self.text_of(record);
            self.take_record(text, sink, |reason| BadRecord {
                path: path.to_owned(),
                record: number,
                is_line: false,
                reason,
            })
        };
        let mut json = serde_json::Deserializer::from_reader(reader);
        let read = Elements { take: &mut take, failure: &mut failure }
            .deserialize(&mut json)
            .and_then(|()| json.end());
        match (failure, read) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(broken_json(path, error)),
        }
    }

    /// Reads records that span several lines each.
    fn read_spread(
        &mut self,
        path: &Path,
        reader: &mut impl BufRead,
        sink: &mut Pieces<'_>,
    ) -> Result<(), DataError> {
        skip_byte_order_mark(reader).map_err(|error| DataError::reading(path, error))?;
        let records = serde_json::Deserializer::from_reader(BufReader::new(Lenient::new(reader)))
            .into_iter::<Value>();
        for (number, record) in (1..).zip(records) {
            let text = self.text_of(record.map_err(|error| broken_json(path, error))?);
            self.take_record(text, sink, |reason| BadRecord {
                path: path.to_owned(),
                record: number,
                is_line: false,
                reason,
            })?;
        }
        Ok(())
    }

    fn splitter(&self) -> Splitter {
        Splitter::new(self.options.max_document_words, self.options.reach)
    }

    /// The text of one record, or why it is unusable.
    fn text_of(&self, record: Value) -> Result<String, String> {
        let field = &self.options.text_field;
        match record {
            Value::String(text) => Ok(text),
            Value::Object(mut fields) => match fields.remove(field) {
                Some(Value::String(text)) => Ok(text),
                Some(other) => Err(format!("field {field:?} is {}, not a string", kind(&other))),
                None => {
                    let names: Vec<String> =
                        fields.keys().take(5).map(|name| format!("{name:?}")).collect();
                    Err(format!(
                        "there is no field {field:?}, only {}",
                        if names.is_empty() { "{}".into() } else { names.join(", ") }
                    ))
                }
            },
            other => Err(format!("the record is {}, not an object", kind(&other))),
        }
    }

    fn take_record(
        &mut self,
        text: Result<String, String>,
        sink: &mut Pieces<'_>,
        bad_record: impl FnOnce(String) -> BadRecord,
    ) -> Result<(), DataError> {
        self.report.records += 1;
        match text {
            Ok(text) if text.is_empty() => {
                self.report.empty_records += 1;
                Ok(())
            }
            Ok(text) => {
                let mut splitter = self.splitter();
                splitter.push(&text, sink)?;
                self.end_document(splitter, sink)
            }
            Err(reason) => {
                self.report.bad_records += 1;
                let bad = bad_record(reason);
                let first = self.report.first_bad_record.get_or_insert(bad).clone();
                let DocumentCounts { bad_records: bad, records, .. } = self.report;
                if self.options.max_bad_records > 0.0 {
                    Ok(())
                } else {
                    Err(DataError::TooManyBadRecords { bad, records, limit: 0.0, first })
                }
            }
        }
    }

    fn end_document(
        &mut self,
        mut splitter: Splitter,
        sink: &mut Pieces<'_>,
    ) -> Result<(), DataError> {
        splitter.finish(sink)?;
        self.report.documents += u64::from(splitter.bytes > 0);
        self.report.split_documents += u64::from(splitter.pieces > 1);
        self.report.text_bytes += splitter.bytes;
        Ok(())
    }
}

/// Counts the bytes read from a file.
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

fn broken_json(path: &Path, error: serde_json::Error) -> DataError {
    if error.is_io() {
        return DataError::reading(path, error.into());
    }
    DataError::BrokenJson {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        reason: without_place(&error),
    }
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
