//! JSON records as they are found in the wild: with Python's `NaN`, and with one object over
//! several lines.
//!
//! Works on bytes and JSON values. Start at [`parse`] and [`Lenient`].

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use crate::data::DataError;

/// Bytes that are searched for the end of an object over several lines.
const MAX_SPREAD_RECORD: u64 = 64 << 20;

/// What Python's `json.dumps` writes for numbers that JSON does not have, and a number of the same
/// length.
const NOT_JSON: [(&[u8], &[u8]); 2] = [(b"NaN", b"0.0"), (b"Infinity", b"0.000000")];

/// The record in `line`, or why it is invalid. `is_lenient` reads `NaN` and `Infinity` as numbers.
pub(super) fn parse(line: &[u8], is_lenient: bool) -> Result<Value, String> {
    let error = match serde_json::from_slice(line) {
        Ok(record) => return Ok(record),
        Err(error) => error,
    };
    if is_lenient {
        if let Err(error) = std::str::from_utf8(line) {
            return Err(format!("byte {} of the line is not UTF-8", error.valid_up_to() + 1));
        }
        let mut repaired = line.to_vec();
        NonFinite::default().replace(&mut repaired);
        if repaired != line
            && let Ok(record) = serde_json::from_slice(&repaired)
        {
            return Ok(record);
        }
    }
    Err(without_place(&error))
}

/// The message of a JSON error; without its position, which the caller reports.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(message, _)| message.to_owned())
}

/// Replaces `NaN` and `Infinity` outside of strings by numbers of the same length, across chunk
/// boundaries.
#[derive(Debug, Default)]
struct NonFinite {
    in_string: bool,
    is_escaped: bool,
    /// The replacement in progress: the rest of the name, and of the number to write.
    rest: (&'static [u8], &'static [u8]),
}

impl NonFinite {
    fn replace(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.in_string {
                self.in_string = *byte != b'"' || self.is_escaped;
                self.is_escaped = *byte == b'\\' && !self.is_escaped;
                continue;
            }
            if let ([name, names @ ..], [number, numbers @ ..]) = self.rest {
                // Any other word is not JSON and must not become valid JSON.
                if byte == name {
                    (*byte, self.rest) = (*number, (names, numbers));
                } else {
                    *byte = b'?';
                    self.rest = Default::default();
                }
                continue;
            }
            self.in_string = *byte == b'"';
            // No other JSON outside of a string has these letters.
            if let Some((name, number)) = NOT_JSON.iter().find(|(name, _)| name[0] == *byte) {
                (*byte, self.rest) = (number[0], (&name[1..], &number[1..]));
            }
        }
    }
}

/// Reads JSON with `NaN` and `Infinity` as JSON without them.
pub(super) struct Lenient<R> {
    reader: R,
    numbers: NonFinite,
}

impl<R: Read> Lenient<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, numbers: NonFinite::default() }
    }
}

impl<R: Read> Read for Lenient<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.numbers.replace(&mut out[..read]);
        Ok(read)
    }
}

/// Whether the first record of the file spans several lines.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn is_spread(path: &Path) -> Result<bool, DataError> {
    let unreadable = |error| DataError::reading(path, error);
    let open = || -> Result<BufReader<File>, DataError> {
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        skip_byte_order_mark(&mut reader).map_err(unreadable)?;
        Ok(reader)
    };
    let mut line = Vec::new();
    let mut reader = open()?.take(MAX_SPREAD_RECORD);
    while line.trim_ascii().is_empty() {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(false);
        }
    }
    // A first line that is a complete record, or not the start of one, decides; this is the usual
    // case.
    if line.trim_ascii_start().first() != Some(&b'{') || parse(&line, true).is_ok() {
        return Ok(false);
    }
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(Lenient::new(
        open()?.take(MAX_SPREAD_RECORD),
    )));
    Ok(serde::de::IgnoredAny::deserialize(&mut json).is_ok())
}

/// Skips the byte order mark that some editors write in front of UTF-8.
pub(super) fn skip_byte_order_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
        reader.consume(3);
    }
    Ok(())
}

/// The first byte that is not white space; it stays in the reader.
pub(super) fn first_visible(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = reader.fill_buf()?;
        let blank =
            buffer.iter().take_while(|byte| byte.is_ascii_whitespace() && **byte != b'\n').count();
        match buffer.get(blank) {
            // Line breaks are left where they are, so that lines keep their numbers.
            Some(b'\n') => return Ok(buffer.trim_ascii_start().first().copied()),
            Some(byte) => return Ok(Some(*byte)),
            None if buffer.is_empty() => return Ok(None),
            None => reader.consume(blank),
        }
    }
}

/// Passes the elements of a JSON array on one by one.
pub(super) struct Elements<'a> {
    pub take: &'a mut dyn FnMut(Value) -> Result<(), DataError>,
    /// Error of `take`, which ends the reading.
    pub failure: &'a mut Option<DataError>,
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
