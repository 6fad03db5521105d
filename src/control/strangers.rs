//! Connections that say nothing: how many an engine keeps, and for how long.
//!
//! A connection is a stranger until it has greeted. A real client greets at once, so strangers need few places, and one more
//! takes the place of the one that has been silent for longest: they can neither fill the engine's memory nor keep a client out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;

/// How many connections an engine keeps, and for how long they may say nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// How long a client may take to greet.
    pub(crate) greeting: Duration,
    /// How long a client that asks for no records may then say nothing.
    pub(crate) idle: Duration,
    /// Connections that have not greeted.
    pub(crate) strangers: usize,
    /// Connections that have.
    pub(crate) clients: usize,
}

/// Whether a connection has greeted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Greeted(Arc<AtomicBool>);

/// The connections that have not greeted, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Strangers(VecDeque<(AbortHandle, Greeted)>);

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { greeting: Duration::from_secs(5), idle: Duration::from_secs(30), strangers: 32, clients: 128 }
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
    /// Takes one more in; beyond `limit`, disconnects the oldest.
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
