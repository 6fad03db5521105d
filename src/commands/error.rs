//! The error of a command: message, hint, exit code.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use crate::advice::{Advice, Audience, FAILED, USAGE};

/// Why a command failed.
#[derive(Debug)]
pub struct CommandError {
    /// What failed, readable after "error: ".
    pub message: String,
    /// What to type next.
    pub hint: Option<String>,
    /// Exit code of the process.
    pub exit_code: u8,
}

impl CommandError {
    /// An invalid request, which the user has to change.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), exit_code: USAGE }
    }

    /// A failure that the user did not cause.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), exit_code: FAILED }
    }

    /// The file system refused `path`.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        Self::failed(
            format!("{}: {error}", path.display()),
            "check that the folder exists, that you may write there and that the disk has space",
        )
    }

    /// `error`, with the hint for `audience`.
    pub fn told_to(audience: Audience<'_>, error: &(impl Error + Advice)) -> Self {
        Self {
            message: error.to_string(),
            hint: Some(error.hint(audience)),
            exit_code: error.exit_code(),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error + Advice> From<E> for CommandError {
    fn from(error: E) -> Self {
        Self::told_to(Audience::Command, &error)
    }
}
