//! What the client is told ([`Msg`]), what it does ([`Effect`]), and what one of its screens asks
//! for ([`Request`]).

use std::time::Duration;

use crossterm::event::KeyEvent;
use jiff::Timestamp;

use crate::control::Feed;
use crate::record::{RunCommand, RunDirectory, RunSummary};
use crate::tui::theme::Background;

/// A run on one of the client's screens, numbered in the order of opening; a run that is opened
/// again has a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(u64);

/// What can be done with a shown run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Commands are sent to an engine.
    Steer,
    /// Its files are read; nothing is sent.
    Read,
}

/// A message: something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A key press.
    Key(KeyEvent),
    /// A message of a run.
    Feed(RunId, Feed),
    /// Time since the client started.
    Clock(Duration),
    /// The terminal was resized, or the client resumed after a suspension.
    Resized,
    /// The list of runs was read.
    Runs(RunList),
    /// The terminal reported its background.
    Background(Background),
    /// A run was started or resumed, or that failed.
    Opened(Result<RunDirectory, Refusal>),
}

/// The list of runs at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RunList {
    /// Running runs first, then newest first.
    pub runs: Vec<RunSummary>,
    /// Time of reading.
    pub at: Timestamp,
}

/// Why a run was not started or resumed; raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// A side effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a command to the engine of a run.
    Send {
        /// The run.
        run: RunId,
        /// Id of the command, for its answers.
        id: String,
        /// Requested command.
        command: RunCommand,
    },
    /// Exit the client; runs continue.
    Leave,
    /// Suspend this client.
    Suspend,
    /// Redraw everything.
    Redraw,
    /// Read the list of runs.
    List,
    /// Follow a run, in addition to those followed already.
    Listen(RunId, RunDirectory, Access),
    /// Stop following a run.
    Unlisten(RunId),
    /// Resume a run, then send [`Msg::Opened`].
    Resume(RunDirectory),
    /// Start the configuration with this name or path, then send [`Msg::Opened`].
    Start(String),
}

/// What a screen asks the client for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// An effect.
    Effect(Effect),
    /// The screen of a run, above this screen.
    Open(RunDirectory, Access),
    /// The end of this screen.
    Close,
}

/// Command ids of one client, unique among all clients of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandIds {
    prefix: String,
    num_given: u64,
}

impl RunId {
    /// The first run of a client.
    pub const FIRST: Self = Self(0);

    /// The run opened after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl From<Effect> for Request {
    fn from(effect: Effect) -> Self {
        Self::Effect(effect)
    }
}

impl CommandIds {
    /// Ids for the client with the unique number `client`.
    #[must_use]
    pub fn new(client: u64) -> Self {
        Self { prefix: format!("{client}-key-"), num_given: 0 }
    }

    /// The next unused id.
    pub(crate) fn next(&mut self) -> String {
        self.num_given += 1;
        format!("{}{}", self.prefix, self.num_given)
    }

    /// Whether `id` belongs to this client.
    pub(crate) fn is_own(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix)
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u64| (1..=self.num_given).contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_are_counted_per_client_and_recognised() {
        let (mut mine, mut other) = (CommandIds::new(7), CommandIds::new(71));
        assert_eq!(
            (mine.next().as_str(), mine.next().as_str(), other.next().as_str()),
            ("7-key-1", "7-key-2", "71-key-1")
        );
        assert!(mine.is_own("7-key-2"));
        for foreign in ["71-key-1", "7-key-3", "7-key-0", "7-1", "7-key-", "c1"] {
            assert!(!mine.is_own(foreign), "{foreign}");
        }
    }
}
