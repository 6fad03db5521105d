//! What every error adds to its message: what to type next, and the exit code.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

/// Exit code for a request that the user has to change.
pub const USAGE: u8 = 2;
/// Exit code when something failed.
pub const FAILED: u8 = 1;

/// Who reads a hint: it names only keys, options and commands that exist there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience<'a> {
    /// The user of any command but these two.
    Command,
    /// The user of `patchtui tokenizer train`.
    TokenizerTraining,
    /// The user of `patchtui eval`.
    Evaluation,
    /// The user of a run that has failed; its name, as a word for a shell.
    Run(&'a str),
}

/// What an error adds to its message.
pub trait Advice {
    /// What to type next.
    fn hint(&self, audience: Audience<'_>) -> String;

    /// Exit code of a command that fails with this error; unless the user caused it, [`FAILED`].
    fn exit_code(&self) -> u8 {
        FAILED
    }
}

/// What a user is told when something failed: any error with its advice, or one that is only told.
///
/// It is no [`Error`] itself, so that every error can become one with `?`.
#[derive(Debug)]
pub struct Failure {
    /// What failed, readable after "error: ".
    pub message: String,
    /// What to type next.
    pub hint: Option<String>,
    /// Exit code of the process.
    pub exit_code: u8,
}

impl Failure {
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error + Advice> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::told_to(Audience::Command, &error)
    }
}
