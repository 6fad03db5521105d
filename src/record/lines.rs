//! A record as one line of JSON, and which file of the run it belongs to.
//!
//! Steps, evaluations, activations and samples have separate files, with the fields of the event on
//! the same level as those of the record, so that a table reader can load them directly. Everything
//! else goes to `events.jsonl`. [`RunEvent::Progress`] is for attached clients only: it takes a
//! sequence number, so that a client sees no gap, but is not stored; readers of the files therefore
//! treat gaps in `seq` as normal.
//!
//! A file may contain a measurement of a step twice: a command can request one again, and a kill
//! between a measurement and its checkpoint makes the next attempt repeat it. Lines beyond the step
//! that a later `run_started` resumes from (`resumed_from`; all lines if it is null) are
//! superseded; of two lines for the same step, readers keep the last one.
//!
//! A line is parsed by its type. A flat line without a type has the type of its file. An unknown
//! type is [`RunEvent::Unknown`], not a broken line, and unknown fields are ignored.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::record::{FORMAT_VERSION, Record, RunDirectory, RunEvent};

/// Limits that no run reaches.
const HIGHEST_SEQ: u64 = 1 << 62;
const HIGHEST_ATTEMPT: u32 = 1 << 30;

/// A file of lines in a run directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFile {
    /// Everything without a separate file.
    Events,
    /// Metrics.
    Metrics,
    /// Evaluations of the token loss.
    Evals,
    /// Activation measurements.
    Activations,
    /// Samples.
    Samples,
}

/// Why a line is not a record.
#[derive(Debug, Error)]
pub enum LineError {
    /// It is not valid JSON for this file.
    #[error("not a record: {0}")]
    NotARecord(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error(
        "format version {found} is too new: this version of patchtui reads up to {FORMAT_VERSION}"
    )]
    Newer {
        /// The version of the line.
        found: u32,
    },
    /// Its numbers are out of range.
    #[error("record {seq} of attempt {attempt} is out of range")]
    Beyond {
        /// The number of the record.
        seq: u64,
        /// The number of the attempt.
        attempt: u32,
    },
}

/// Fields of every line.
#[derive(Deserialize)]
struct Header {
    format_version: u32,
    seq: u64,
    at: String,
    attempt: u32,
    /// Type of a flat line, if it differs from the type of its file.
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct EventLine {
    event: RunEvent,
}

impl LineFile {
    /// All files.
    pub const ALL: [Self; 5] =
        [Self::Events, Self::Metrics, Self::Evals, Self::Activations, Self::Samples];

    /// The file in which `event` is stored, if it is stored.
    #[must_use]
    pub fn of(event: &RunEvent) -> Option<Self> {
        match event {
            RunEvent::Progress(_) => None,
            RunEvent::StepCompleted(_) => Some(Self::Metrics),
            RunEvent::Evaluated(_) => Some(Self::Evals),
            RunEvent::ActivationsMeasured(_) => Some(Self::Activations),
            RunEvent::Sampled(_) => Some(Self::Samples),
            _ => Some(Self::Events),
        }
    }

    /// Its path in `directory`.
    #[must_use]
    pub fn path(self, directory: &RunDirectory) -> PathBuf {
        match self {
            Self::Events => directory.events(),
            Self::Metrics => directory.metrics(),
            Self::Evals => directory.evals(),
            Self::Activations => directory.activations(),
            Self::Samples => directory.samples(),
        }
    }
}

/// The line that stores `record`, with its line feed.
///
/// # Errors
/// When a path in the record is not UTF-8.
pub fn encode(record: &Record) -> Result<String, serde_json::Error> {
    let mut line = match &record.event {
        RunEvent::StepCompleted(metrics) => flat(record, metrics),
        RunEvent::Evaluated(evaluation) => flat(record, evaluation),
        RunEvent::ActivationsMeasured(activations) => flat(record, activations),
        RunEvent::Sampled(sample) => flat(record, sample),
        _ => return encode_event(record),
    }?;
    line.push('\n');
    Ok(line)
}

/// The line with the event as a nested object, for all events; this is the format for scripts.
pub fn encode_event(record: &Record) -> Result<String, serde_json::Error> {
    let mut fields = header(record);
    fields.insert("event".into(), serde_json::to_value(&record.event)?);
    Ok(Value::Object(fields).to_string() + "\n")
}

/// Parses a line of `file`, with or without its line feed.
pub fn decode(file: LineFile, line: &[u8]) -> Result<Record, LineError> {
    let Header { format_version, seq, at, attempt, kind } = serde_json::from_slice(line)?;
    if format_version > FORMAT_VERSION {
        return Err(LineError::Newer { found: format_version });
    }
    // Numbering continues from the highest number read and must never reach these limits.
    if seq > HIGHEST_SEQ || attempt > HIGHEST_ATTEMPT {
        return Err(LineError::Beyond { seq, attempt });
    }
    let event = match (file, kind) {
        (LineFile::Events, _) => serde_json::from_slice::<EventLine>(line)?.event,
        // The fields of a typed line are on the level of its type, like those of an event.
        (_, Some(_)) => serde_json::from_slice(line)?,
        (LineFile::Metrics, None) => RunEvent::StepCompleted(serde_json::from_slice(line)?),
        (LineFile::Evals, None) => RunEvent::Evaluated(serde_json::from_slice(line)?),
        (LineFile::Activations, None) => {
            RunEvent::ActivationsMeasured(serde_json::from_slice(line)?)
        }
        (LineFile::Samples, None) => RunEvent::Sampled(serde_json::from_slice(line)?),
    };
    Ok(Record { seq, at, attempt, event })
}

fn header(record: &Record) -> Map<String, Value> {
    let fields = [
        ("format_version", Value::from(FORMAT_VERSION)),
        ("seq", Value::from(record.seq)),
        ("at", Value::from(record.at.as_str())),
        ("attempt", Value::from(record.attempt)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn flat<T: Serialize>(record: &Record, payload: &T) -> Result<String, serde_json::Error> {
    let mut fields = header(record);
    if let Value::Object(payload) = serde_json::to_value(payload)? {
        fields.extend(payload);
    }
    Ok(Value::Object(fields).to_string())
}
