//! Output streams: a closed pipe is not an error, any other failed write is.
//!
//! Results go to standard output with [`print`], and a lost result is an error. Messages on
//! standard error are best effort: losing them never changes a result or an exit code.

use std::fmt;
use std::io::{self, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::text::sanitize;

/// A result could not be written to standard output.
#[derive(Debug, Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(#[from] io::Error);

impl Advice for OutputError {
    fn hint(&self, _: Audience<'_>) -> String {
        "check that the disk has space, or redirect the output elsewhere".into()
    }
}

/// A text stream that is flushed after every write and that ignores writes after the first failure.
pub struct Output(State);

enum State {
    Open(Box<dyn Write + Send>),
    /// Its reader has closed it.
    Closed,
    /// A write failed, and the caller got the error.
    Failed,
}

impl Output {
    /// Writes to `stream`.
    #[must_use]
    pub fn new(stream: Box<dyn Write + Send>) -> Self {
        Self(State::Open(stream))
    }

    /// Writes `text` and flushes it; does nothing if the reader has closed the stream.
    ///
    /// # Errors
    /// When the stream fails, the first time only.
    pub fn write(&mut self, text: &str) -> Result<(), OutputError> {
        let State::Open(stream) = &mut self.0 else { return Ok(()) };
        match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.0 = State::Closed;
                Ok(())
            }
            Err(error) => {
                self.0 = State::Failed;
                Err(error.into())
            }
        }
    }

    /// Writes lines of a run, which continues whether or not they are read: a failure is reported
    /// as one warning.
    pub fn write_or_warn(&mut self, text: &str) {
        if let Err(error) = self.write(text) {
            warn(&format!("{error}; the run continues and its files are complete"));
        }
    }

    /// Writes progress and messages, which may be lost.
    pub fn try_write(&mut self, text: &str) {
        // The stream for error messages is the one that failed.
        let _ = self.write(text);
    }

    /// Whether output still reaches a reader or a file.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.0, State::Open(_))
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Open(_) => "Output(open)",
            State::Closed => "Output(closed)",
            State::Failed => "Output(failed)",
        })
    }
}

/// Standard output.
#[must_use]
pub fn stdout() -> Output {
    Output::new(Box::new(io::stdout()))
}

/// Standard error.
#[must_use]
pub fn stderr() -> Output {
    Output::new(Box::new(io::stderr()))
}

/// Writes `text` to standard output.
///
/// # Errors
/// When it cannot be written, unless its reader has closed it.
pub fn print(text: &str) -> Result<(), OutputError> {
    stdout().write(text)
}

/// Prints a JSON document, its control characters escaped.
///
/// # Errors
/// When standard output cannot be written, unless its reader has closed it.
pub fn print_json(document: &str) -> Result<(), OutputError> {
    print(&(sanitize::json(document).into_owned() + "\n"))
}

/// Prints the answer of the command-line parser: help and version as results, errors as messages.
///
/// # Errors
/// When standard output cannot be written, unless its reader has closed it.
pub fn print_help(answer: &clap::Error) -> Result<(), OutputError> {
    match answer.print().and_then(|()| io::stdout().flush()) {
        Err(error) if !answer.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error.into())
        }
        _ => Ok(()),
    }
}

/// Whether standard output is a closed pipe: a command that only prints can then stop computing.
#[must_use]
pub fn reader_is_gone() -> bool {
    let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdout(), PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
        && fds[0].revents().contains(PollFlags::ERR)
}

/// Writes an error and its hint to standard error, sanitized.
pub fn complain(message: &str, hint: Option<&str>) {
    let mut stderr = stderr();
    stderr.try_write(&format!("error: {}\n", sanitize::text(message)));
    if let Some(hint) = hint {
        stderr.try_write(&format!(" hint: {}\n", sanitize::text(hint)));
    }
}

/// Writes information for people to standard error, sanitized.
pub fn tell(text: &str) {
    stderr().try_write(&format!("{}\n", sanitize::text(text)));
}

/// Writes a warning to standard error, sanitized.
pub fn warn(message: &str) {
    stderr().try_write(&format!("warning: {}\n", sanitize::text(message)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write with the same error.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_silent_and_every_other_failure_is_told_once() {
        let mut closed = Output::new(Box::new(Failing(io::ErrorKind::BrokenPipe)));
        closed.write("text").unwrap();
        assert!(!closed.is_open());
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
            let mut failing = Output::new(Box::new(Failing(kind)));
            failing.write("text").unwrap_err();
            failing.write("more").unwrap();
            assert!(!failing.is_open());
        }
    }
}
