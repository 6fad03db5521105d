//! Why a run cannot be started under the requested name.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::config::{ConfigError, IdentityChange};
use crate::record::{LockError, RunDirectory, RunState};
use crate::text::format::shell_word;

/// Why a run cannot be started under the requested name.
#[derive(Debug, Error)]
pub enum HostError {
    /// Another engine is running there.
    #[error("the run {:?} is already running in {}", directory.name(), directory.path().display())]
    Alive {
        /// Directory of the run.
        directory: RunDirectory,
    },
    /// A run of that name exists.
    #[error("the run {:?} exists ({}) in {}", directory.name(), state.word(), directory.path().display())]
    Exists {
        /// Directory of the run.
        directory: RunDirectory,
        /// How it ended.
        state: RunState,
    },
    /// The folder of the run contains something else.
    #[error("{} is not empty and not a run directory", path.display())]
    Occupied {
        /// Path of the folder.
        path: PathBuf,
    },
    /// There is no run to resume.
    #[error("{} {}", path.display(), if path.exists() { "is not a run directory" } else { "does not exist" })]
    NoRun {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The configuration differs from that of the existing run.
    #[error(
        "{} is {} in the run {:?}, but {} now{}: it cannot change when a run resumes",
        first.key, first.old, directory.name(), first.new, if *more > 0 { format!(" (and {more} more)") } else { String::new() }
    )]
    OtherRun {
        /// Directory of the run.
        directory: RunDirectory,
        /// The first key that differs.
        first: IdentityChange,
        /// Number of other keys that differ.
        more: usize,
    },
    /// The configuration of the existing run cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
}

impl Advice for HostError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Alive { directory } => {
                format!("attach to it: patchtui attach {}", shell_word(&directory.name()))
            }
            Self::Exists { state: RunState::Completed, .. } => "choose another --name".into(),
            Self::Exists { .. } => "add --resume to continue it, or choose another --name".into(),
            Self::Occupied { .. } => "choose another --name or another --runs-dir".into(),
            Self::NoRun { .. } => "list all runs with: patchtui runs".into(),
            Self::OtherRun { directory, .. } => {
                format!(
                    "undo the change, or fork a new run with it: patchtui run --from {}",
                    shell_word(&directory.name())
                )
            }
            Self::Config(error) => error.hint(audience),
            Self::Lock(error) => error.hint(audience),
            Self::Io { .. } => "check that the folder exists, that you may write there and that \
                                the disk has space"
                .into(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::Lock(error) => error.exit_code(),
            Self::Io { .. } => FAILED,
            Self::Alive { .. }
            | Self::Exists { .. }
            | Self::Occupied { .. }
            | Self::NoRun { .. }
            | Self::OtherRun { .. } => USAGE,
        }
    }
}
