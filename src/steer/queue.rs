//! The queue of commands to a run, and its sending end.

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Sender};

use crate::steer::{CommandEnvelope, Inbox, StopFlag};

/// Maximum number of commands in the queue.
const QUEUE: usize = 64;

/// The sending end of a run's commands.
#[derive(Debug, Clone)]
pub struct CommandSender {
    queue: Sender<CommandEnvelope>,
    stop: StopFlag,
}

/// A queue for commands.
#[must_use]
pub fn command_channel() -> (CommandSender, Inbox) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let stop = StopFlag::default();
    (CommandSender { queue, stop: stop.clone() }, Inbox::new(receiver, stop))
}

impl CommandSender {
    /// Sends a command without waiting; ignored if the run has ended, or if the queue is full and
    /// one more would have no effect.
    pub fn send(&self, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        // The flag is raised after sending, so that a reader that sees it raised finds the command.
        let _ = self.queue.try_send(envelope);
        self.stop.raise(level);
    }

    /// Sends a command when the queue has room for it; ignored if the run has ended.
    pub async fn send_when_possible(self, envelope: CommandEnvelope) {
        let level = envelope.command.stop_level();
        if let Err(TrySendError::Full(envelope)) = self.queue.try_send(envelope) {
            // A stop takes effect at once, and is answered when its turn comes.
            self.stop.raise(level);
            let _ = self.queue.send(envelope).await;
        }
        self.stop.raise(level);
    }

    /// The flag that this sender raises.
    #[must_use]
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::RunCommand;
    use crate::steer::StopLevel;

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
        while let Some(batch) = inbox.wait(Duration::from_millis(100)) {
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
        let evaluate = inbox.wait(Duration::from_mins(1)).map(|batch| batch.command);
        assert_eq!(evaluate, Some(RunCommand::Evaluate));
    }

    #[test]
    fn batches_are_rationed_until_a_stop() {
        let (commands, mut inbox) = command_channel();
        let mut take = |id: usize| {
            let command = if id.is_multiple_of(2) { RunCommand::Pause } else { RunCommand::Resume };
            send(&commands, &id.to_string(), command, "a");
            inbox.next_batch(true)
        };
        // A thousand commands take far less than a second.
        let taken = (0..1000).filter_map(&mut take).count();
        assert!(taken < 200, "{taken} batches");
        send(&commands, "stop", RunCommand::Stop, "a");
        assert_eq!(commands.stop_flag().level(), StopLevel::AfterCheckpoint);
        // All that still wait are taken at once, to be answered.
        let left = std::iter::from_fn(|| inbox.next_batch(true));
        assert!(left.map(|batch| batch.envelopes.len()).sum::<usize>() >= 64);
    }
}
