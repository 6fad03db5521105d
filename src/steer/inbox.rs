//! The trainer's end of the command queue: waiting commands, and the answers to earlier ones.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use crate::record::{CommandNote, RunEvent};
use crate::steer::{CommandBatch, CommandEnvelope, StopFlag, StopLevel};

/// Minimum time between two batches: each writes two lines to `events.jsonl`.
const BETWEEN_BATCHES: Duration = Duration::from_millis(20);
/// Number of commands remembered, to recognize one that is sent again after a lost connection.
const REMEMBERED: usize = 1024;
/// Maximum number of commands and of repeated answers that wait here; more wait in the queue.
const WAITING: usize = 64;

/// The trainer's end of the command queue.
#[derive(Debug)]
pub struct Inbox {
    queue: Receiver<CommandEnvelope>,
    stop: StopFlag,
    /// New commands, in order of arrival.
    waiting: VecDeque<CommandEnvelope>,
    /// The newest commands, oldest first.
    known: VecDeque<KnownCommand>,
    /// Answers to commands that were sent again.
    repeats: VecDeque<RunEvent>,
    /// When the next batch may be taken.
    next_at: Instant,
    is_abandoned: bool,
}

/// A command, and its answer once it has one.
#[derive(Debug)]
struct KnownCommand {
    id: String,
    from: String,
    answer: Option<RunEvent>,
}

impl Inbox {
    pub(crate) fn new(queue: Receiver<CommandEnvelope>, stop: StopFlag) -> Self {
        Self {
            queue,
            stop,
            waiting: VecDeque::new(),
            known: VecDeque::new(),
            repeats: VecDeque::new(),
            next_at: Instant::now(),
            is_abandoned: false,
        }
    }

    /// The next commands that may be executed now, all equal; costly ones only if `with_costly`.
    ///
    /// Stops and kills come first. Unless the run was asked to end, commands that arrive faster
    /// than fifty batches per second wait, and so do their senders.
    #[must_use]
    pub fn next_batch(&mut self, with_costly: bool) -> Option<CommandBatch> {
        self.receive();
        let commands = || self.waiting.iter().map(|envelope| envelope.command);
        let urgent = commands().position(|command| command.stop_level() > StopLevel::None);
        let first = urgent
            .or_else(|| commands().position(|command| with_costly || !command.is_costly()))?;
        if urgent.is_none() && !self.stop.is_raised() && !self.may_take() {
            return None;
        }
        let command = self.waiting[first].command;
        let mut envelopes = Vec::new();
        let mut idx = first;
        while let Some(other) = self.waiting.get(idx).map(|envelope| envelope.command) {
            if other == command {
                envelopes.extend(self.waiting.remove(idx));
            } else if command.must_follow(other) {
                break;
            } else {
                idx += 1;
            }
        }
        Some(CommandBatch { command, envelopes })
    }

    /// Waits for commands, for at most `limit`.
    #[must_use]
    pub fn wait(&mut self, limit: Duration) -> Option<CommandBatch> {
        let until = Instant::now() + limit;
        loop {
            if let Some(batch) = self.next_batch(true) {
                return Some(batch);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::sleep(left.min(BETWEEN_BATCHES));
        }
    }

    /// Remembers that `batch` was answered with `note`, in case one of its commands is sent again.
    pub fn remember(&mut self, batch: &CommandBatch, note: &CommandNote, is_done: bool) {
        for envelope in &batch.envelopes {
            let note = CommandNote { id: envelope.id.clone(), also: Vec::new(), ..note.clone() };
            if let Some(known) = self.known.iter_mut().find(|known| known.is(envelope)) {
                known.answer = Some(if is_done {
                    RunEvent::CommandDone(note)
                } else {
                    RunEvent::CommandFailed(note)
                });
            }
        }
    }

    /// The next answer to a command that was sent again after it had been answered.
    #[must_use]
    pub fn next_repeat(&mut self) -> Option<RunEvent> {
        self.receive();
        if self.repeats.is_empty() || !self.may_take() {
            return None;
        }
        self.repeats.pop_front()
    }

    /// Whether there are no senders left.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// The flag that long loops check.
    #[must_use]
    pub fn stop_flag(&self) -> &StopFlag {
        &self.stop
    }

    fn receive(&mut self) {
        while self.waiting.len() < WAITING && self.repeats.len() < WAITING {
            let envelope = match self.queue.try_recv() {
                Ok(envelope) => envelope,
                Err(error) => {
                    self.is_abandoned = error == TryRecvError::Disconnected;
                    return;
                }
            };
            if let Some(known) = self.known.iter().find(|known| known.is(&envelope)) {
                self.repeats.extend(known.answer.clone());
            } else {
                if self.known.len() == REMEMBERED {
                    self.known.pop_front();
                }
                let (id, from) = (envelope.id.clone(), envelope.from.clone());
                self.known.push_back(KnownCommand { id, from, answer: None });
                self.waiting.push_back(envelope);
            }
        }
    }

    fn may_take(&mut self) -> bool {
        let now = Instant::now();
        let may_take = now >= self.next_at;
        if may_take {
            self.next_at = now + BETWEEN_BATCHES;
        }
        may_take
    }
}

impl KnownCommand {
    fn is(&self, envelope: &CommandEnvelope) -> bool {
        self.id == envelope.id && self.from == envelope.from
    }
}
