//! The commands to a run, as events and messages name them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A command to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunCommand {
    /// Pause until resumed; memory stays allocated.
    Pause,
    /// Continue after a pause.
    Resume,
    /// Save a checkpoint now and continue.
    Checkpoint,
    /// Measure the token loss (K = 1) now.
    Evaluate,
    /// Generate samples now.
    Sample,
    /// Save a checkpoint and stop; an incomplete step is dropped.
    Stop,
    /// Stop without saving.
    Kill,
    /// A command of a newer version.
    #[serde(other)]
    Unknown,
}

impl RunCommand {
    /// The word for it on the command line and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Checkpoint => "checkpoint",
            Self::Evaluate => "evaluate",
            Self::Sample => "sample",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Unknown => "unknown command",
        }
    }
}

impl fmt::Display for RunCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
