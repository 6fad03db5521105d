//! The error of a command: message, hint, exit code.

use std::fmt;
use std::io;
use std::path::Path;

use crate::config::ConfigError;
use crate::control::ControlError;
use crate::data::DataError;
use crate::host::StartError;
use crate::plan::PlanError;
use crate::record::{FindError, LockError};
use crate::report::OutputError;
use crate::report::figure::FigureError;
use crate::tasks::TaskError;

/// Exit code for an invalid request.
const USAGE: u8 = 2;
/// Exit code when something failed.
const FAILED: u8 = 1;

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
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        let hint =
            error.hint().unwrap_or_else(|| "list every key with: patchtui config template".into());
        Self::usage(error.to_string(), hint)
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

impl From<DataError> for CommandError {
    fn from(error: DataError) -> Self {
        let exit_code = if error.is_user_error() { USAGE } else { FAILED };
        Self { message: error.to_string(), hint: Some(error.hint()), exit_code }
    }
}

impl From<TaskError> for CommandError {
    fn from(error: TaskError) -> Self {
        let exit_code = if error.is_user_error() { USAGE } else { FAILED };
        Self { message: error.to_string(), hint: Some(error.hint()), exit_code }
    }
}

impl From<OutputError> for CommandError {
    fn from(error: OutputError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

impl From<FigureError> for CommandError {
    fn from(error: FigureError) -> Self {
        let exit_code =
            if matches!(error, FigureError::UnknownEnding { .. }) { USAGE } else { FAILED };
        Self { message: error.to_string(), hint: Some(error.hint().into()), exit_code }
    }
}

impl From<FindError> for CommandError {
    fn from(error: FindError) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

impl From<LockError> for CommandError {
    fn from(error: LockError) -> Self {
        let hint = error.hint();
        match error {
            LockError::Alive { .. } => Self::usage(error.to_string(), hint),
            LockError::NoLocks { .. } | LockError::Io { .. } => {
                Self::failed(error.to_string(), hint)
            }
        }
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        let is_usage = matches!(
            error,
            StartError::Lock(LockError::Alive { .. })
                | StartError::Control(ControlError::NoSocket { .. })
        );
        let exit_code = if is_usage { USAGE } else { FAILED };
        Self { message: error.to_string(), hint: Some(error.hint()), exit_code }
    }
}

impl From<ControlError> for CommandError {
    fn from(error: ControlError) -> Self {
        Self::failed(error.to_string(), error.hint())
    }
}

#[cfg(feature = "engine")]
impl From<crate::engine::device::DeviceError> for CommandError {
    fn from(error: crate::engine::device::DeviceError) -> Self {
        match error {
            crate::engine::device::DeviceError::NotBuilt { .. } => {
                Self::usage(error.to_string(), error.hint())
            }
            crate::engine::device::DeviceError::NotFound { .. } => {
                Self::failed(error.to_string(), error.hint())
            }
        }
    }
}

#[cfg(feature = "engine")]
impl From<crate::engine::device::PrecisionError> for CommandError {
    fn from(error: crate::engine::device::PrecisionError) -> Self {
        Self::usage(error.to_string(), error.hint())
    }
}

#[cfg(feature = "engine")]
impl From<crate::engine::OpenError> for CommandError {
    fn from(error: crate::engine::OpenError) -> Self {
        if error.is_broken_model() {
            Self::failed(error.to_string(), error.hint())
        } else {
            Self::usage(error.to_string(), error.hint())
        }
    }
}

#[cfg(feature = "engine")]
impl From<crate::engine::EngineError> for CommandError {
    fn from(error: crate::engine::EngineError) -> Self {
        if let crate::engine::EngineError::Precision(error) = error {
            return error.into();
        }
        let hint = match &error {
            crate::engine::EngineError::Thread(_) => {
                "raise the limit on processes (ulimit -u)".to_owned()
            }
            crate::engine::EngineError::WrongDevice(failure) => failure.hint(),
            crate::engine::EngineError::NonFinitePrediction => error.hint().unwrap_or_default(),
            _ => "try again with --device cpu".to_owned(),
        };
        Self::failed(error.to_string(), hint)
    }
}

#[cfg(feature = "engine")]
impl From<crate::engine::hugging_face::ExportError> for CommandError {
    fn from(error: crate::engine::hugging_face::ExportError) -> Self {
        if error.is_user_error() {
            Self::usage(error.to_string(), error.hint())
        } else {
            Self::failed(error.to_string(), error.hint())
        }
    }
}
