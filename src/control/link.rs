//! What a client holds of an engine: records come in, commands go out, reconnecting happens behind it.

use tokio::sync::mpsc::{Receiver, UnboundedSender};

use crate::run::{History, Record, RunCommand};

/// What a client hears.
#[derive(Debug, Clone)]
pub enum Feed {
    /// Everything so far; replaces what was known before.
    Snapshot(Box<History>),
    /// One more record.
    Record(Box<Record>),
    /// The connection is gone; it is tried again after `retry_seconds`.
    Lost {
        /// Why.
        reason: String,
        /// When the next try is.
        retry_seconds: f64,
    },
    /// The engine's process has ended, and `history` is what its files say.
    Ended {
        /// What the files say.
        history: Box<History>,
    },
}

/// A client's two ends.
#[derive(Debug)]
pub struct EngineLink {
    /// What the engine says.
    pub feed: Receiver<Feed>,
    /// What the engine is told.
    pub commands: UnboundedSender<RunCommand>,
}
