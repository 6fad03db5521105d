//! One JSON line per record, for scripts: the format of `events.jsonl`, for all events.

use crate::record::{Record, encode_event};
use crate::report::Output;
use crate::text::sanitize;

/// Writes every record as a JSON line.
#[derive(Debug)]
pub struct Json {
    out: Output,
}

impl Json {
    /// Writes to `out`.
    #[must_use]
    pub fn new(out: Output) -> Self {
        Self { out }
    }

    /// Writes one more record.
    pub fn show(&mut self, record: &Record) {
        // Only a record with a path that is not UTF-8 cannot be serialized; the store warns about
        // it.
        if let Ok(line) = encode_event(record) {
            self.out.write_or_warn(&sanitize::json(&line));
        }
    }
}
