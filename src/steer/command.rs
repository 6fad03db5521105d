//! Commands to a run from keys, scripts and signals, and the stop flag that long loops check.
//!
//! Commands wait in a short queue until the trainer takes them, between micro-batches. Faster
//! senders wait for a slot; equal commands are merged; a stop overtakes the others and raises a
//! flag that evaluation, sampling, trial steps and data preparation check, so that none of them
//! delays it. Start at [`command_channel`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::record::CommandNote;
use crate::steer::Inbox;

/// Maximum number of client commands in the queue; further senders wait for a slot.
const CLIENT_SLOTS: usize = 64;
/// Maximum number of stops and kills in the queue, counted separately.
const URGENT_SLOTS: usize = 16;
/// Maximum number of other commands from signals of this process in the queue; more would have no
/// effect.
const LOCAL_SLOTS: usize = 16;
/// Maximum number of senders named in an answer.
const NAMED_SENDERS: usize = 3;

/// Stack size of the trainer's thread and of its worker threads: the graph of a deep network is
/// traversed and dropped recursively. Only touched pages take memory.
pub const COMPUTE_STACK: usize = 64 * 1024 * 1024;

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

/// Equal commands that are executed together; their queue slots are released when this is dropped.
#[derive(Debug)]
pub struct CommandBatch {
    /// Requested command.
    pub command: RunCommand,
    /// The commands in order of arrival; at least one.
    pub(crate) waiting: Vec<Waiting>,
}

/// Whether and how a run was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopLevel {
    /// Not at all.
    None = 0,
    /// With a checkpoint.
    AfterCheckpoint = 1,
    /// Without one.
    Now = 2,
}

/// The flag that long loops check. Commands raise it, and it raises itself at the deadline.
#[derive(Debug, Clone)]
pub struct StopFlag(Arc<StopState>);

#[derive(Debug)]
struct StopState {
    level: AtomicU8,
    /// Start of the deadline.
    created: Instant,
    /// Milliseconds after `created`; `u64::MAX` for never.
    deadline: AtomicU64,
}

/// The sending end of a run's commands.
#[derive(Debug, Clone)]
pub struct CommandSender {
    channel: Sender<Waiting>,
    stop: StopFlag,
    client_slots: Arc<Semaphore>,
    urgent_slots: Arc<Semaphore>,
    local_slots: Arc<Semaphore>,
}

/// A command and its slot in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) envelope: CommandEnvelope,
    _slot: OwnedSemaphorePermit,
}

/// A queue for commands.
#[must_use]
pub fn command_channel() -> (CommandSender, Inbox) {
    let (channel, receiver) = mpsc::channel();
    let stop = StopFlag::default();
    let slots = |count| Arc::new(Semaphore::new(count));
    let (client_slots, urgent_slots, local_slots) =
        (slots(CLIENT_SLOTS), slots(URGENT_SLOTS), slots(LOCAL_SLOTS));
    (
        CommandSender { channel, stop: stop.clone(), client_slots, urgent_slots, local_slots },
        Inbox::new(receiver, stop),
    )
}

impl Default for StopFlag {
    fn default() -> Self {
        Self(Arc::new(StopState {
            level: AtomicU8::new(StopLevel::None as u8),
            created: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
        }))
    }
}

impl StopFlag {
    /// Whether and how the run was asked to end.
    #[must_use]
    pub fn level(&self) -> StopLevel {
        let level = self.0.level.load(Ordering::Relaxed);
        if level == StopLevel::None as u8 && self.is_past_deadline() {
            // Raised permanently: the deadline may still be moved, but the flag never falls.
            self.raise(StopLevel::AfterCheckpoint);
            return self.level();
        }
        match level {
            0 => StopLevel::None,
            1 => StopLevel::AfterCheckpoint,
            _ => StopLevel::Now,
        }
    }

    /// Whether the run was asked to end.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.level() > StopLevel::None
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_past_deadline(&self) -> bool {
        self.0.created.elapsed().as_millis() >= u128::from(self.0.deadline.load(Ordering::Relaxed))
    }

    /// Raises the flag; it never falls.
    pub fn raise(&self, level: StopLevel) {
        self.0.level.fetch_max(level as u8, Ordering::Relaxed);
    }

    /// Raises the flag at `deadline`: the run then ends with a checkpoint.
    pub fn set_deadline(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.0.created);
        self.0
            .deadline
            .store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
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

impl CommandSender {
    /// Sends a command of this process without waiting; ignored if the run has ended.
    pub fn send(&self, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        let slots = if level == StopLevel::None { &self.local_slots } else { &self.urgent_slots };
        match slots.clone().try_acquire_owned() {
            Ok(slot) => self.send_in(slot, envelope),
            // The slots for its kind are taken: one more would have no effect, but a stop must
            // still be seen.
            Err(_) => self.stop.raise(level),
        }
    }

    /// The slots of which a client must acquire one before it may [`Self::send_in`] `command`;
    /// granted in order of arrival.
    ///
    /// Stops and kills have separate slots; if those are taken too, the command takes effect right
    /// here, without the name of its sender.
    #[must_use]
    pub fn slots(&self, command: RunCommand) -> Arc<Semaphore> {
        let level = command.stop_level();
        if level == StopLevel::None {
            return self.client_slots.clone();
        }
        if self.urgent_slots.available_permits() == 0 {
            self.stop.raise(level);
        }
        self.urgent_slots.clone()
    }

    /// Sends a command that has a queue slot; ignored if the run has ended.
    pub fn send_in(&self, slot: OwnedSemaphorePermit, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        // A closed channel means that the trainer has ended and the command is obsolete. The flag
        // is raised after sending, so that a reader that sees it raised finds the command.
        let _ = self.channel.send(Waiting { envelope, _slot: slot });
        self.stop.raise(level);
    }

    /// The flag that this sender raises.
    #[must_use]
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }
}

impl CommandBatch {
    /// The note that accepts or answers all of these commands.
    #[must_use]
    pub fn note(&self, step: u64, message: impl Into<String>) -> CommandNote {
        let mut ids = self.envelopes().map(|envelope| envelope.id.clone());
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

    /// The commands, in order of arrival.
    pub fn envelopes(&self) -> impl Iterator<Item = &CommandEnvelope> {
        self.waiting.iter().map(|waiting| &waiting.envelope)
    }

    /// The distinct senders, and how many more if there are many.
    fn senders(&self) -> String {
        let mut senders: Vec<&str> = Vec::new();
        for envelope in self.envelopes() {
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

impl fmt::Display for RunCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Checkpoint => "checkpoint",
            Self::Evaluate => "evaluate",
            Self::Sample => "sample",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Unknown => "unknown command",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_raises_the_flag_for_good() {
        let flag = StopFlag::default();
        flag.set_deadline(Instant::now() + std::time::Duration::from_hours(1));
        assert_eq!(flag.level(), StopLevel::None);
        flag.set_deadline(Instant::now());
        assert_eq!(flag.level(), StopLevel::AfterCheckpoint);
        flag.set_deadline(Instant::now() + std::time::Duration::from_hours(1));
        assert_eq!(flag.level(), StopLevel::AfterCheckpoint);
        flag.raise(StopLevel::Now);
        assert_eq!(flag.level(), StopLevel::Now);
    }

    fn send(commands: &CommandSender, id: &str, command: RunCommand, from: &str) {
        commands.send(CommandEnvelope { id: id.into(), command, from: from.into() });
    }

    #[test]
    fn equal_commands_are_taken_together_but_no_pause_passes_a_resume() {
        let (commands, mut inbox) = command_channel();
        for (id, command) in [
            ("1", RunCommand::Pause),
            ("2", RunCommand::Evaluate),
            ("3", RunCommand::Resume),
            ("4", RunCommand::Pause),
        ] {
            send(&commands, id, command, "a");
        }
        send(&commands, "5", RunCommand::Evaluate, "b");
        let mut taken = Vec::new();
        while let Some(batch) = inbox.next_batch(true) {
            let note = batch.note(0, "");
            taken.push((note.id, note.also.join(" "), note.from));
        }
        let row =
            |id: &str, also: &str, from: &str| (id.to_owned(), also.to_owned(), from.to_owned());
        assert_eq!(
            taken,
            [row("1", "", "a"), row("2", "5", "a, b"), row("3", "", "a"), row("4", "", "a")]
        );
    }

    #[test]
    fn costly_commands_wait_without_holding_up_the_others() {
        let (commands, mut inbox) = command_channel();
        send(&commands, "1", RunCommand::Evaluate, "a");
        send(&commands, "2", RunCommand::Pause, "a");
        assert_eq!(inbox.next_batch(false).map(|batch| batch.command), Some(RunCommand::Pause));
        assert!(inbox.next_batch(false).is_none());
        assert_eq!(inbox.next_batch(true).map(|batch| batch.command), Some(RunCommand::Evaluate));
    }

    #[test]
    fn batches_are_rationed_but_a_stop_is_not() {
        let (commands, mut inbox) = command_channel();
        let mut take = |id: usize, command| {
            send(&commands, &id.to_string(), command, "a");
            inbox.next_batch(true)
        };
        // The batches take far less than a second.
        let taken = (0..1000)
            .filter(|id| {
                take(*id, if id % 2 == 0 { RunCommand::Pause } else { RunCommand::Resume })
                    .is_some()
            })
            .count();
        assert!(taken < 200, "{taken} batches at once");
        assert_eq!(take(1000, RunCommand::Stop).map(|batch| batch.command), Some(RunCommand::Stop));
    }
}
