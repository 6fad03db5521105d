//! JSON lines with typed fields; every error names file, line and field.
//!
//! Start at [`read_records`].

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::tasks::TaskError;

/// A JSON object with its location.
#[derive(Debug, Clone)]
pub(super) struct Record<'a> {
    place: RecordPlace<'a>,
    fields: Map<String, Value>,
    /// Prefix of its field names: the name of the enclosing field, with a dot.
    prefix: &'static str,
}

/// A line of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordPlace<'a> {
    /// Path of the file.
    pub path: &'a Path,
    /// Line, counted from 1.
    pub line: u64,
}

impl RecordPlace<'_> {
    /// An error at this place.
    pub(super) fn bad(self, problem: impl Into<String>) -> TaskError {
        TaskError::BadRecord {
            path: self.path.to_owned(),
            line: self.line,
            problem: problem.into(),
        }
    }
}

/// Reads every line of the file at `path` as a record.
///
/// # Errors
/// When it cannot be read, is empty, or `read` rejects a line.
pub(super) fn read_records<T>(
    path: &Path,
    mut read: impl FnMut(&Record<'_>) -> Result<T, TaskError>,
) -> Result<Vec<T>, TaskError> {
    let text = read_text(path)?;
    let mut found = Vec::new();
    for (line, text) in
        (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
    {
        let place = RecordPlace { path, line };
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => found.push(read(&Record { place, fields, prefix: "" })?),
            Ok(other) => {
                return Err(place.bad(format!("the line is {}, not an object", kind(&other))));
            }
            Err(error) => {
                let message = error.to_string();
                let message = message
                    .rsplit_once(" at line ")
                    .map_or(message.as_str(), |(message, _)| message);
                return Err(place
                    .bad(format!("it is not valid JSON: {message} in column {}", error.column())));
            }
        }
    }
    if found.is_empty() { Err(TaskError::NoDocuments { path: path.to_owned() }) } else { Ok(found) }
}

/// The text of the file at `path`, without a byte order mark.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String, TaskError> {
    let unreadable = |error| TaskError::reading(path, error);
    // A pipe or a device may never end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a regular file",
        )));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is not UTF-8 text at byte {offset}"),
        ))
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

impl<'a> Record<'a> {
    /// Location of the record.
    pub(super) fn place(&self) -> RecordPlace<'a> {
        self.place
    }

    /// Whether the record has the field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }

    /// A string field.
    pub(super) fn text(&self, field: &str) -> Result<String, TaskError> {
        match self.value(field)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(field, &format!("{}, not a string", kind(other)))),
        }
    }

    /// A list of strings.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, TaskError> {
        let read =
            |(idx, value): (usize, &Value)| match value {
                Value::String(text) => Ok(text.clone()),
                other => Err(self
                    .wrong(&format!("{field}[{idx}]"), &format!("{}, not a string", kind(other)))),
            };
        self.list(field)?.iter().enumerate().map(read).collect()
    }

    /// The choices of a question.
    pub(super) fn choices(&self, field: &str) -> Result<Vec<String>, TaskError> {
        let texts = self.texts(field)?;
        if texts.len() < 2 {
            Err(self.wrong(
                field,
                &format!("a list of {}, but a choice needs two or more", texts.len()),
            ))
        } else {
            Ok(texts)
        }
    }

    /// The index of one of `num_choices` choices, counted from 0; may be written as a string.
    pub(super) fn choice(&self, field: &str, num_choices: usize) -> Result<usize, TaskError> {
        let value = self.value(field)?;
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let is_choice = |number: &usize| *number < num_choices;
        number.and_then(|number| usize::try_from(number).ok()).filter(is_choice).ok_or_else(|| {
            self.wrong(
                field,
                &format!("{}, not a number from 0 to {}", shown(value), num_choices - 1),
            )
        })
    }

    /// The object in a field, if present.
    pub(super) fn object(&self, field: &str, prefix: &'static str) -> Option<Self> {
        match self.fields.get(field) {
            Some(Value::Object(fields)) => {
                Some(Self { place: self.place, fields: fields.clone(), prefix })
            }
            _ => None,
        }
    }

    /// A list of objects.
    pub(super) fn objects(
        &self,
        field: &str,
        prefix: &'static str,
    ) -> Result<Vec<Self>, TaskError> {
        let read = |(idx, value): (usize, &Value)| match value {
            Value::Object(fields) => Ok(Self { place: self.place, fields: fields.clone(), prefix }),
            other => {
                Err(self
                    .wrong(&format!("{field}[{idx}]"), &format!("{}, not an object", kind(other))))
            }
        };
        self.list(field)?.iter().enumerate().map(read).collect()
    }

    /// An error that says what a field is instead.
    pub(super) fn wrong(&self, field: &str, is: &str) -> TaskError {
        self.place.bad(format!("field {:?} is {is}", format!("{}{field}", self.prefix)))
    }

    fn list(&self, field: &str) -> Result<&Vec<Value>, TaskError> {
        match self.value(field)? {
            Value::Array(values) => Ok(values),
            other => Err(self.wrong(field, &format!("{}, not a list", kind(other)))),
        }
    }

    fn value(&self, field: &str) -> Result<&Value, TaskError> {
        self.fields.get(field).ok_or_else(|| {
            self.place.bad(format!("field {:?} is missing", format!("{}{field}", self.prefix)))
        })
    }
}

/// A value in a message, shortened.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 20 => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        other => kind(other).into(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
