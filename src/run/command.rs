//! What a run hears: commands from keys, scripts and signals, and the flag that long loops look at.
//!
//! Every command goes through one channel to the trainer, which reads it between micro-batches. A stop also raises a level
//! that every long loop reads, so that none of them delays it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Finish the step, save, end.
    Stop,
    /// End without saving.
    Kill,
}

/// A command with its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnvelope {
    /// Chosen by the sender, to recognise the answer.
    pub id: String,
    /// What is asked.
    pub command: RunCommand,
    /// Who asks, like `"keyboard of alice (pid 12)"` or `"SIGTERM"`.
    pub from: String,
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

/// The flag that long loops look at.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicU8>);

/// The sending end of a run's commands.
#[derive(Debug, Clone)]
pub struct CommandSender {
    channel: Sender<CommandEnvelope>,
    stop: StopFlag,
}

/// The trainer's end of a run's commands.
#[derive(Debug)]
pub struct Inbox {
    channel: Receiver<CommandEnvelope>,
    stop: StopFlag,
}

/// A channel for commands.
#[must_use]
pub fn command_channel() -> (CommandSender, Inbox) {
    let (sender, receiver) = mpsc::channel();
    let stop = StopFlag::default();
    (CommandSender { channel: sender, stop: stop.clone() }, Inbox { channel: receiver, stop })
}

impl StopFlag {
    /// How urgently the run was asked to end.
    #[must_use]
    pub fn level(&self) -> StopLevel {
        match self.0.load(Ordering::Relaxed) {
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
        self.0.fetch_max(level as u8, Ordering::Relaxed);
    }
}

impl CommandSender {
    /// Sends a command; a run that has ended ignores it.
    pub fn send(&self, envelope: CommandEnvelope) {
        let level = match envelope.command {
            RunCommand::Stop => StopLevel::AfterCheckpoint,
            RunCommand::Kill => StopLevel::Now,
            _ => StopLevel::None,
        };
        // A closed channel means that the trainer has ended, and with it the reason for the command. The flag is raised after
        // sending, so that whoever sees it raised finds the command.
        let _ = self.channel.send(envelope);
        self.stop.raise(level);
    }

    /// The flag that this sender raises.
    #[must_use]
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }
}

impl Inbox {
    /// The next waiting command, if there is one.
    #[must_use]
    pub fn next_waiting(&self) -> Option<CommandEnvelope> {
        self.channel.try_recv().ok()
    }

    /// Waits for a command, at most for `limit`.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> Option<CommandEnvelope> {
        self.channel.recv_timeout(limit).ok()
    }

    /// The flag that long loops look at.
    #[must_use]
    pub fn stop_flag(&self) -> &StopFlag {
        &self.stop
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
        })
    }
}
