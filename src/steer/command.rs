//! Commands to a run, and equal ones that are executed together.

use serde::{Deserialize, Serialize};

use crate::record::{CommandNote, RunCommand};
use crate::steer::StopLevel;

/// Maximum number of senders named in an answer.
const NAMED_SENDERS: usize = 3;

/// A command and its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// Chosen by the sender, to match the answer; another command of the same sender with the same
    /// id is a retry of the same command.
    pub id: String,
    /// Requested command.
    pub command: RunCommand,
    /// Name of the sender, e.g. `"keyboard of alice (pid 12)"` or `"SIGTERM"`.
    pub from: String,
}

/// Equal commands that are executed together.
#[derive(Debug)]
pub struct CommandBatch {
    /// Requested command.
    pub command: RunCommand,
    /// The commands in order of arrival; at least one.
    pub envelopes: Vec<CommandEnvelope>,
}

impl RunCommand {
    /// The level that this command raises the flag to.
    #[must_use]
    pub fn stop_level(self) -> StopLevel {
        match self {
            Self::Stop => StopLevel::AfterCheckpoint,
            Self::Kill => StopLevel::Now,
            _ => StopLevel::None,
        }
    }

    /// Whether the command takes a noticeable part of the trainer's time.
    #[must_use]
    pub fn is_costly(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Evaluate | Self::Sample)
    }

    /// Whether `self` must not overtake a waiting `other`.
    pub(crate) fn must_follow(self, other: Self) -> bool {
        matches!((self, other), (Self::Pause, Self::Resume) | (Self::Resume, Self::Pause))
    }
}

impl CommandBatch {
    /// The note that accepts or answers all of these commands.
    #[must_use]
    pub fn note(&self, step: u64, message: impl Into<String>) -> CommandNote {
        let mut ids = self.envelopes.iter().map(|envelope| envelope.id.clone());
        CommandNote {
            id: ids.next().unwrap_or_default(),
            command: self.command,
            from: self.senders(),
            step,
            message: message.into(),
            also: ids.collect(),
            seconds: None,
            bytes: None,
        }
    }

    /// The distinct senders, and how many more if there are many.
    fn senders(&self) -> String {
        let mut senders: Vec<&str> = Vec::new();
        for envelope in &self.envelopes {
            if !senders.contains(&envelope.from.as_str()) {
                senders.push(&envelope.from);
            }
        }
        let more = senders.len().saturating_sub(NAMED_SENDERS);
        senders.truncate(NAMED_SENDERS);
        let named = senders.join(", ");
        if more == 0 { named } else { format!("{named} and {more} more") }
    }
}
