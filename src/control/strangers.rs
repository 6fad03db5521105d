//! Limits the number and duration of connections that send nothing.
//!
//! A connection counts as a stranger until it has greeted. A real client greets at once, so
//! strangers need few places, and a new one replaces the one that has been silent longest:
//! strangers can neither fill the engine's memory nor keep clients out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;

/// Limits for connections: how many, and how long they may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Time limit for a client's greeting.
    pub greeting: Duration,
    /// How long a client that receives no records may then be silent.
    pub idle: Duration,
    /// Maximum number of connections that have not greeted.
    pub strangers: usize,
    /// Maximum number of connections that have greeted.
    pub clients: usize,
}

/// Whether a connection has greeted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Greeted(Arc<AtomicBool>);

/// The connections that have not greeted, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Strangers(VecDeque<(AbortHandle, Greeted)>);

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            strangers: 32,
            clients: 128,
        }
    }
}

impl Greeted {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Strangers {
    /// Adds one; beyond `limit`, disconnects the oldest.
    pub(crate) fn add(&mut self, task: AbortHandle, greeted: Greeted, limit: usize) {
        self.0.push_back((task, greeted));
        if self.0.len() > limit {
            self.0.retain(|(task, greeted)| !greeted.get() && !task.is_finished());
        }
        while self.0.len() > limit {
            self.0.pop_front().into_iter().for_each(|(oldest, _)| oldest.abort());
        }
    }
}
