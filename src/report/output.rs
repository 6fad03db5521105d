//! Output streams that ignore errors once nobody reads them any more.

use std::fmt;
use std::io::{self, Write};

use crate::run::sanitize;

/// A stream of whole lines that gives up silently: on a closed pipe, on a terminal that hung up.
pub struct Output(Option<Box<dyn Write + Send>>);

impl Output {
    /// Writes to `stream`.
    #[must_use]
    pub fn new(stream: Box<dyn Write + Send>) -> Self {
        Self(Some(stream))
    }

    /// Writes `text` and flushes it.
    pub fn write(&mut self, text: &str) {
        let Some(stream) = &mut self.0 else { return };
        if stream.write_all(text.as_bytes()).and_then(|()| stream.flush()).is_err() {
            // What has hung up does not come back.
            self.0 = None;
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Output(open)" } else { "Output(closed)" })
    }
}

/// The standard output.
#[must_use]
pub fn stdout() -> Output {
    Output::new(Box::new(io::stdout()))
}

/// Writes `text` to the standard output.
pub fn print(text: &str) {
    stdout().write(text);
}

/// Writes an error and its hint to the standard error stream, sanitised.
pub fn complain(message: &str, hint: Option<&str>) {
    let mut stderr = Output::new(Box::new(io::stderr()));
    stderr.write(&format!("error: {}\n", sanitize::text(message)));
    if let Some(hint) = hint {
        stderr.write(&format!(" hint: {}\n", sanitize::text(hint)));
    }
}

/// Writes what a person wants to know, and no program reads, to the standard error stream, sanitised.
pub fn tell(text: &str) {
    Output::new(Box::new(io::stderr())).write(&format!("{}\n", sanitize::text(text)));
}

/// Writes a warning to the standard error stream, sanitised.
pub fn warn(message: &str) {
    Output::new(Box::new(io::stderr())).write(&format!("warning: {}\n", sanitize::text(message)));
}
