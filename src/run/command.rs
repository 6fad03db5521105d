//! What a run is told: commands from keys, scripts and signals, and the flag that long loops look at.
//!
//! Commands wait in a short queue until the trainer takes them, between micro-batches. Who sends faster than that waits for
//! room; equal commands are taken together; a stop passes the others and raises a flag that evaluation, sampling, trial steps
//! and data preparation read, so that none of them delays it. Start at [`command_channel`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::run::{CommandNote, Inbox};

/// Commands of clients that wait at most; whoever sends more waits for room.
const CLIENT_ROOM: usize = 64;
/// Stops and kills that wait at most, besides the other commands.
const URGENT_ROOM: usize = 16;
/// Other commands of this process, from signals, that wait at most; more of them would say nothing new.
const LOCAL_ROOM: usize = 16;
/// Senders that the note of one answer names.
const NAMED_SENDERS: usize = 3;

/// Stack of the trainer's thread and of every thread that computes for it: the graph of a deep network is walked and dropped by
/// recursion. Only the pages that are used take memory.
pub const COMPUTE_STACK: usize = 64 * 1024 * 1024;

/// What a run can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunCommand {
    /// Compute nothing until told to go on; the memory stays.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Save now and go on.
    Checkpoint,
    /// Measure the token-level loss now.
    Evaluate,
    /// Continue the prompts now.
    Sample,
    /// Finish the micro-batch, save, end.
    Stop,
    /// End without saving.
    Kill,
    /// A command of a newer version.
    #[serde(other)]
    Unknown,
}

/// A command with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// Chosen by the sender, to recognise the answer; another command of the same sender with this id is the same command,
    /// sent again.
    pub id: String,
    /// What is asked.
    pub command: RunCommand,
    /// Who asks, like `"keyboard of alice (pid 12)"` or `"SIGTERM"`.
    pub from: String,
}

/// Equal commands that are carried out together; their places in the queue are free again when this is dropped.
#[derive(Debug)]
pub struct CommandBatch {
    /// What is asked.
    pub command: RunCommand,
    /// Who asks, in the order of arrival; at least one.
    pub(crate) waiting: Vec<Waiting>,
}

/// How urgently a run was asked to end.
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

/// The flag that long loops look at. It is raised by commands, and by itself when the deadline has passed.
#[derive(Debug, Clone)]
pub struct StopFlag(Arc<StopState>);

#[derive(Debug)]
struct StopState {
    level: AtomicU8,
    /// What the deadline counts from.
    created: Instant,
    /// Milliseconds after `created`; `u64::MAX` for never.
    deadline: AtomicU64,
}

/// The sending end of a run's commands.
#[derive(Debug, Clone)]
pub struct CommandSender {
    channel: Sender<Waiting>,
    stop: StopFlag,
    client_room: Arc<Semaphore>,
    urgent_room: Arc<Semaphore>,
    local_room: Arc<Semaphore>,
}

/// A command and its place in the queue.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) envelope: CommandEnvelope,
    _room: OwnedSemaphorePermit,
}

/// A queue for commands.
#[must_use]
pub fn command_channel() -> (CommandSender, Inbox) {
    let (channel, receiver) = mpsc::channel();
    let stop = StopFlag::default();
    let room = |places| Arc::new(Semaphore::new(places));
    let (client_room, urgent_room, local_room) = (room(CLIENT_ROOM), room(URGENT_ROOM), room(LOCAL_ROOM));
    (CommandSender { channel, stop: stop.clone(), client_room, urgent_room, local_room }, Inbox::new(receiver, stop))
}

impl Default for StopFlag {
    fn default() -> Self {
        Self(Arc::new(StopState { level: AtomicU8::new(StopLevel::None as u8), created: Instant::now(), deadline: AtomicU64::new(u64::MAX) }))
    }
}

impl StopFlag {
    /// How urgently the run was asked to end.
    #[must_use]
    pub fn level(&self) -> StopLevel {
        let level = self.0.level.load(Ordering::Relaxed);
        if level == StopLevel::None as u8 && self.0.created.elapsed().as_millis() >= u128::from(self.0.deadline.load(Ordering::Relaxed)) {
            // Raised for good: the deadline may still be moved, and a flag never falls.
            self.raise(StopLevel::AfterCheckpoint);
            return self.level();
        }
        match level {
            0 => StopLevel::None,
            1 => StopLevel::AfterCheckpoint,
            _ => StopLevel::Now,
        }
    }

    /// Whether the run was asked to end at all.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.level() > StopLevel::None
    }

    /// Raises the flag; it never falls.
    pub fn raise(&self, level: StopLevel) {
        self.0.level.fetch_max(level as u8, Ordering::Relaxed);
    }

    /// Lets the flag rise by itself at `deadline`: the run then ends with a checkpoint.
    pub fn set_deadline(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.0.created);
        self.0.deadline.store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
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

    /// Whether carrying it out takes the trainer's time.
    #[must_use]
    pub fn is_costly(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Evaluate | Self::Sample)
    }

    /// Whether `self` must not pass a waiting `other`.
    pub(crate) fn must_follow(self, other: Self) -> bool {
        matches!((self, other), (Self::Pause, Self::Resume) | (Self::Resume, Self::Pause))
    }
}

impl CommandSender {
    /// Sends a command of this process without waiting; a run that has ended ignores it.
    pub fn send(&self, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        let room = if level == StopLevel::None { &self.local_room } else { &self.urgent_room };
        match room.clone().try_acquire_owned() {
            Ok(room) => self.send_in(room, envelope),
            // That many of its kind wait already: one more says nothing new, but a stop must still be seen.
            Err(_) => self.stop.raise(level),
        }
    }

    /// Where a client has to get a place before it may [`Self::send_in`] `command`. Places are given in the order of asking.
    ///
    /// A stop or kill has places of its own; when even those are taken it takes effect here already, without its sender's name.
    #[must_use]
    pub fn room(&self, command: RunCommand) -> Arc<Semaphore> {
        let level = command.stop_level();
        if level == StopLevel::None {
            return self.client_room.clone();
        }
        if self.urgent_room.available_permits() == 0 {
            self.stop.raise(level);
        }
        self.urgent_room.clone()
    }

    /// Sends a command that has its place in the queue; a run that has ended ignores it.
    pub fn send_in(&self, room: OwnedSemaphorePermit, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        // A closed channel means that the trainer has ended, and with it the reason for the command. The flag is raised after
        // sending, so that whoever sees it raised finds the command.
        let _ = self.channel.send(Waiting { envelope, _room: room });
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

    /// The commands, in the order of arrival.
    pub fn envelopes(&self) -> impl Iterator<Item = &CommandEnvelope> {
        self.waiting.iter().map(|waiting| &waiting.envelope)
    }

    /// Who asks, each once, and how many more if there are many.
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
        for (id, command) in [("1", RunCommand::Pause), ("2", RunCommand::Evaluate), ("3", RunCommand::Resume), ("4", RunCommand::Pause)] {
            send(&commands, id, command, "a");
        }
        send(&commands, "5", RunCommand::Evaluate, "b");
        let mut taken = Vec::new();
        while let Some(batch) = inbox.next_batch(true) {
            let note = batch.note(0, "");
            taken.push((note.id, note.also.join(" "), note.from));
        }
        let row = |id: &str, also: &str, from: &str| (id.to_owned(), also.to_owned(), from.to_owned());
        assert_eq!(taken, [row("1", "", "a"), row("2", "5", "a, b"), row("3", "", "a"), row("4", "", "a")]);
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
        // Nowhere near a second passes between the first batch and the last.
        let taken = (0..1000).filter(|id| take(*id, if id % 2 == 0 { RunCommand::Pause } else { RunCommand::Resume }).is_some()).count();
        assert!(taken < 200, "{taken} batches at once");
        assert_eq!(take(1000, RunCommand::Stop).map(|batch| batch.command), Some(RunCommand::Stop));
    }
}
