//! The trainer's end of the command queue: waiting commands, answered ones, and the rate limit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::steer::command::Waiting;
use crate::record::{CommandNote, RunEvent};
use crate::steer::{CommandBatch, CommandEnvelope, StopFlag, StopLevel};

/// Batches that may be taken at once after an idle period.
const BURST: u32 = 32;
/// Minimum time between two batches after that: each writes two lines to `events.jsonl`.
const BETWEEN_BATCHES: Duration = Duration::from_millis(20);
/// Number of commands remembered, to recognize one that is sent again after a lost connection.
const REMEMBERED: usize = 1024;
/// Maximum number of answers waiting to be repeated.
const REPEATS: usize = 16;

/// The trainer's end of the command queue.
#[derive(Debug)]
pub struct Inbox {
    channel: Receiver<Waiting>,
    stop: StopFlag,
    /// Commands with a slot, in order of arrival.
    waiting: VecDeque<Waiting>,
    known: KnownCommands,
    repeats: VecDeque<RunEvent>,
    allowance: Allowance,
    is_abandoned: bool,
}

/// How many batches may be taken now: a leaky bucket.
#[derive(Debug)]
struct Allowance {
    /// Time at which all batches taken so far are paid for.
    paid_at: Instant,
}

/// Results of the newest commands.
#[derive(Debug, Default)]
struct KnownCommands {
    order: VecDeque<CommandKey>,
    states: HashMap<CommandKey, Known>,
}

/// Sender and id of a command.
type CommandKey = (String, String);

/// Whether a known command was answered.
#[derive(Debug, Clone)]
enum Known {
    /// It is waiting or being executed.
    Waiting,
    /// It was completed, or it failed.
    Answered { note: Arc<CommandNote>, is_done: bool },
}

impl Inbox {
    pub(crate) fn new(channel: Receiver<Waiting>, stop: StopFlag) -> Self {
        Self {
            channel,
            stop,
            waiting: VecDeque::new(),
            known: KnownCommands::default(),
            repeats: VecDeque::new(),
            allowance: Allowance { paid_at: Instant::now() },
            is_abandoned: false,
        }
    }

    /// The next commands that may be executed now, all equal; costly ones only if `with_costly`.
    ///
    /// Stops and kills come first. Unless the run was asked to end, commands that arrive faster
    /// than about fifty batches per second wait, and so do their senders.
    #[must_use]
    pub fn next_batch(&mut self, with_costly: bool) -> Option<CommandBatch> {
        self.receive_all();
        let is_ending = self.stop.is_raised();
        let commands = || self.waiting.iter().map(|waiting| waiting.envelope.command);
        let urgent = commands().position(|command| command.stop_level() > StopLevel::None);
        let first = urgent
            .or_else(|| commands().position(|command| with_costly || !command.is_costly()))?;
        if urgent.is_none() && !is_ending && !self.allowance.take() {
            return None;
        }
        let command = self.waiting[first].envelope.command;
        let mut batch = Vec::new();
        let mut idx = first;
        while let Some(other) = self.waiting.get(idx).map(|waiting| waiting.envelope.command) {
            if other == command {
                batch.extend(self.waiting.remove(idx));
            } else if command.must_follow(other) {
                break;
            } else {
                idx += 1;
            }
        }
        Some(CommandBatch { command, waiting: batch })
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
            let nap = if self.waiting.is_empty() { left } else { left.min(BETWEEN_BATCHES) };
            match self.channel.recv_timeout(nap) {
                Ok(waiting) => self.receive(waiting),
                Err(RecvTimeoutError::Timeout) => {}
                // There are no senders left: recv_timeout returns at once, so wait here.
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_abandoned = true;
                    thread::sleep(nap);
                }
            }
        }
    }

    /// Remembers that `batch` was answered with `note`, in case one of its commands is sent again.
    pub fn remember(&mut self, batch: &CommandBatch, note: &CommandNote, is_done: bool) {
        let answered = Known::Answered { note: Arc::new(note.clone()), is_done };
        for envelope in batch.envelopes() {
            if let Some(state) = self.known.states.get_mut(&key(envelope)) {
                *state = answered.clone();
            }
        }
    }

    /// The next answer to a command that was sent again after it had been answered.
    #[must_use]
    pub fn next_repeat(&mut self) -> Option<RunEvent> {
        self.receive_all();
        if self.repeats.is_empty() || !self.allowance.take() {
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

    fn receive_all(&mut self) {
        loop {
            match self.channel.try_recv() {
                Ok(waiting) => self.receive(waiting),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_abandoned = true;
                    return;
                }
            }
        }
    }

    fn receive(&mut self, waiting: Waiting) {
        match self.known.states.get(&key(&waiting.envelope)).cloned() {
            None => {
                self.known.add(key(&waiting.envelope));
                self.waiting.push_back(waiting);
            }
            Some(Known::Waiting) => {}
            Some(Known::Answered { note, is_done }) => {
                if self.repeats.len() < REPEATS {
                    let note = CommandNote {
                        id: waiting.envelope.id,
                        also: Vec::new(),
                        ..(*note).clone()
                    };
                    self.repeats.push_back(if is_done {
                        RunEvent::CommandDone(note)
                    } else {
                        RunEvent::CommandFailed(note)
                    });
                }
            }
        }
    }
}

impl Allowance {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let paid_at = self.paid_at.max(now) + BETWEEN_BATCHES;
        let may_take = paid_at <= now + BURST * BETWEEN_BATCHES;
        if may_take {
            self.paid_at = paid_at;
        }
        may_take
    }
}

impl KnownCommands {
    fn add(&mut self, key: CommandKey) {
        if self.order.len() == REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.states.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.states.insert(key, Known::Waiting);
    }
}

fn key(envelope: &CommandEnvelope) -> CommandKey {
    (envelope.from.clone(), envelope.id.clone())
}
