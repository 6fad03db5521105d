//! Executes commands: takes them from the inbox, gives the loop an order if one needs work, and
//! answers each with an event.
//!
//! A command is answered when its effect is complete: a stop when its checkpoint is valid, a kill
//! when training has ended. A flood of commands takes a bounded part of the trainer's time. Start
//! at [`Steering::next_order`].

use std::time::{Duration, Instant};

use crate::engine::error::EngineError;
use crate::engine::train::wall_time::{StepTime, TimeLimit};
use crate::record::{
    CheckpointInfo, CommandNote, ControlChange, ControlState, EventSender, Outcome, RunCommand,
    RunEvent, Warning,
};
use crate::steer::{CommandBatch, Inbox, StopLevel};

/// How often a paused run checks the wall-time limit.
const PAUSE_CHECK: Duration = Duration::from_secs(1);
/// Batches of commands answered while a run ends; the end of the run answers the others.
const LAST_BATCHES: usize = 16;

/// The commands of a run, and the state they result in.
#[derive(Debug)]
pub(super) struct Steering {
    inbox: Inbox,
    events: EventSender,
    control: ControlState,
    /// Stops and kills, to be answered when the run has ended.
    ending: Vec<CommandBatch>,
    /// Completed updates when a command last measured or saved: a flood of them lets training go on.
    last_costly: Option<u64>,
    wall_time: Option<TimeLimit>,
}

/// What the loop should do next.
#[derive(Debug)]
pub(super) enum Order {
    /// Train.
    Train,
    /// Do some work, then call [`Steering::answer`] with the result.
    Work(Work, Asked),
    /// Abandon the current work and end, at the level of the stop flag: with or without a
    /// checkpoint.
    End(StopLevel),
}

/// Work requested by commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Wait until the device has completed its queue.
    Settle,
    /// Save a checkpoint.
    Save,
    /// Measure the token loss (K = 1).
    Evaluate,
    /// Generate samples.
    Sample,
}

/// Commands that wait for the answer to their work.
#[derive(Debug)]
pub(super) struct Asked {
    batch: CommandBatch,
    /// Completed updates.
    step: u64,
    began: Instant,
}

/// The result of a command: what was done, or why it failed.
pub(super) type Answer = Result<Done, String>;

/// What was done for a command.
#[derive(Debug, Clone)]
pub(super) struct Done {
    message: String,
    saved: Option<CheckpointInfo>,
}

/// How training ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// All steps were taken.
    Completed,
    /// Early, on request, with this checkpoint.
    Stopped(CheckpointInfo),
    /// Without a checkpoint.
    Interrupted,
}

impl Steering {
    /// Takes commands from `inbox`, within the limit of `wall_time`.
    pub(super) fn new(inbox: Inbox, events: EventSender, wall_time: Option<TimeLimit>) -> Self {
        Self {
            inbox,
            events,
            control: ControlState::Starting,
            ending: Vec::new(),
            last_costly: None,
            wall_time,
        }
    }

    /// Training begins.
    pub(super) fn begin(&mut self, step: u64) {
        self.change_control(ControlState::Running, step);
    }

    /// Raises the stop flag early enough before the wall-time limit for the last step and the last
    /// checkpoint.
    pub(super) fn keep_time(&mut self, now: StepTime) {
        if let Some(deadline) =
            self.wall_time.as_mut().and_then(|wall_time| wall_time.deadline(now))
        {
            self.inbox.stop_flag().set_deadline(deadline);
        }
    }

    /// Records the duration of a save.
    pub(super) fn count_save(&mut self, info: &CheckpointInfo) {
        if let Some(wall_time) = &mut self.wall_time {
            wall_time.count_save(info.seconds);
        }
    }

    /// What to do after `step` updates; while paused, waits for commands.
    pub(super) fn next_order(&mut self, step: u64) -> Order {
        loop {
            // Read before the commands: a command that raised the flag is already waiting, and gets
            // its answer.
            let level = self.inbox.stop_flag().level();
            if level > StopLevel::None {
                self.begin_to_end(level, step);
                return Order::End(level);
            }
            while let Some(answer) = self.inbox.next_repeat() {
                self.events.send(answer);
            }
            let is_due = self.last_costly != Some(step) || self.control == ControlState::Paused;
            let waiting = self.inbox.next_batch(is_due);
            let batch = match waiting {
                Some(batch) => Some(batch),
                None if self.control != ControlState::Paused => return Order::Train,
                None if self.inbox.is_abandoned() => {
                    self.warn(
                        "the control server has ended, so nothing can resume the run: it saves a \
                         checkpoint and ends",
                    );
                    self.inbox.stop_flag().raise(StopLevel::AfterCheckpoint);
                    None
                }
                None => self.inbox.wait(PAUSE_CHECK),
            };
            if let Some(order) = batch.and_then(|batch| self.accept(batch, step)) {
                return order;
            }
        }
    }

    /// Answers the commands whose work was done or has failed.
    pub(super) fn answer(&mut self, asked: Asked, answer: Answer) {
        let Asked { batch, step, began } = asked;
        if batch.command == RunCommand::Pause && answer.is_ok() {
            self.change_control(ControlState::Paused, step);
        }
        let taken = batch.command.is_costly().then(|| began.elapsed());
        if taken.is_some() {
            self.last_costly = Some(step);
        }
        self.reply(&batch, step, answer, taken);
    }

    /// Whether the run should end at once, without a checkpoint.
    pub(super) fn is_killed(&self) -> bool {
        self.inbox.stop_flag().level() == StopLevel::Now
    }

    /// Answers the commands that asked the run to end, which happened after `step` updates.
    pub(super) fn answer_at_the_end(&mut self, step: u64, result: &Result<Ending, EngineError>) {
        self.take_last_commands(step, "the run has ended");
        for batch in std::mem::take(&mut self.ending) {
            let answer = match (batch.command, result) {
                (RunCommand::Kill, Ok(Ending::Interrupted)) => {
                    Ok(Done::new(format!("killed after step {step}; nothing saved")))
                }
                (RunCommand::Stop, Ok(Ending::Stopped(info))) => Ok(Done::saved(info.clone())),
                (_, Ok(Ending::Interrupted)) => Err(format!(
                    "the run was killed after step {step}, before it saved a checkpoint"
                )),
                (_, Ok(_)) => {
                    Ok(Done::new(format!("the run ended after step {step} with a checkpoint")))
                }
                (_, Err(error)) => Err(error.to_string()),
            };
            self.reply(&batch, step, answer, None);
        }
    }

    /// Accepts commands; executes those that need no work.
    fn accept(&mut self, batch: CommandBatch, step: u64) -> Option<Order> {
        self.events.send(RunEvent::CommandAccepted(batch.note(step, "")));
        let began = Instant::now();
        let work = match batch.command {
            RunCommand::Pause => {
                self.change_control(ControlState::Pausing, step);
                Work::Settle
            }
            RunCommand::Checkpoint => Work::Save,
            RunCommand::Evaluate => Work::Evaluate,
            RunCommand::Sample => Work::Sample,
            RunCommand::Resume => {
                self.change_control(ControlState::Running, step);
                self.reply(&batch, step, Ok(Done::new(format!("resumed after step {step}"))), None);
                return None;
            }
            RunCommand::Unknown => {
                self.reply(
                    &batch,
                    step,
                    Err("this version of patchtui does not know the command".to_owned()),
                    None,
                );
                return None;
            }
            RunCommand::Stop | RunCommand::Kill => {
                // The sender raises the flag right after sending; here it is seen before that.
                self.inbox.stop_flag().raise(batch.command.stop_level());
                self.ending.push(batch);
                return None;
            }
        };
        Some(Order::Work(work, Asked { batch, step, began }))
    }

    /// Accepts waiting commands; only stops and kills are still executed, since the flag never
    /// falls.
    fn begin_to_end(&mut self, level: StopLevel, step: u64) {
        self.take_last_commands(step, "the run is stopping");
        if self.ending.is_empty()
            && self.control != ControlState::Stopping
            && self.wall_time.is_some()
        {
            self.warn(
                "training.max_walltime is almost reached: the run saves a checkpoint and stops",
            );
        }
        if level == StopLevel::Now {
            self.control = ControlState::Finished;
        } else {
            self.change_control(ControlState::Stopping, step);
        }
    }

    fn take_last_commands(&mut self, step: u64, refusal: &str) {
        for _ in 0..LAST_BATCHES {
            let Some(batch) = self.inbox.next_batch(true) else { break };
            self.events.send(RunEvent::CommandAccepted(batch.note(step, "")));
            if batch.command.stop_level() > StopLevel::None {
                self.ending.push(batch);
            } else {
                self.reply(&batch, step, Err(refusal.to_owned()), None);
            }
        }
    }

    fn reply(&mut self, batch: &CommandBatch, step: u64, answer: Answer, taken: Option<Duration>) {
        let (is_done, message, saved) = match answer {
            Ok(Done { message, saved }) => (true, message, saved),
            Err(message) => (false, message, None),
        };
        let seconds =
            saved.as_ref().map(|info| info.seconds).or(taken.map(|taken| taken.as_secs_f64()));
        let note = CommandNote {
            seconds,
            bytes: saved.map(|info| info.bytes),
            ..batch.note(step, message)
        };
        self.inbox.remember(batch, &note, is_done);
        self.events.send(if is_done {
            RunEvent::CommandDone(note)
        } else {
            RunEvent::CommandFailed(note)
        });
    }

    fn change_control(&mut self, state: ControlState, step: u64) {
        if self.control != state {
            self.control = state;
            self.events.send(RunEvent::ControlChanged(ControlChange { state, step }));
        }
    }

    fn warn(&self, message: &str) {
        self.events.send(RunEvent::Warning(Warning { message: message.to_owned() }));
    }
}

impl Done {
    /// Something that leaves no checkpoint.
    pub(super) fn new(message: String) -> Self {
        Self { message, saved: None }
    }

    /// A checkpoint was saved.
    pub(super) fn saved(info: CheckpointInfo) -> Self {
        let message = format!(
            "saved step {} in {} ({:.1} MB in {:.1}s)",
            info.step,
            info.path.display(),
            info.bytes as f64 / 1e6,
            info.seconds
        );
        Self { message, saved: Some(info) }
    }
}

impl Ending {
    /// What the run reports.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Completed => Outcome::Completed,
            Self::Stopped(_) => Outcome::Stopped,
            Self::Interrupted => Outcome::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::steer::{CommandEnvelope, CommandSender, command_channel};

    fn steering() -> (CommandSender, Steering, Receiver<RunEvent>) {
        let (commands, inbox) = command_channel();
        let (sender, events) = mpsc::channel();
        let mut steering = Steering::new(inbox, EventSender::new(sender), None);
        steering.begin(3);
        (commands, steering, events)
    }

    fn send(commands: &CommandSender, command: RunCommand) {
        commands.send(CommandEnvelope { id: command.to_string(), command, from: "test".into() });
    }

    #[track_caller]
    fn work(order: Order, expected: Work) -> Asked {
        match order {
            Order::Work(work, asked) if work == expected => asked,
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }

    /// The events since the last call, in a few words each.
    fn said(events: &Receiver<RunEvent>) -> Vec<String> {
        let words = |event| match event {
            RunEvent::ControlChanged(change) => format!("{:?}", change.state),
            RunEvent::CommandAccepted(note) => format!("accepted {}", note.command),
            RunEvent::CommandDone(note) => format!("done {}: {}", note.command, note.message),
            RunEvent::CommandFailed(note) => format!("failed {}: {}", note.command, note.message),
            other => format!("{other:?}"),
        };
        events.try_iter().map(words).collect()
    }

    #[test]
    fn a_run_is_paused_when_the_device_has_settled() {
        let (commands, mut steering, events) = steering();
        assert!(matches!(steering.next_order(3), Order::Train));
        assert_eq!(said(&events), ["Running"]);
        send(&commands, RunCommand::Pause);
        let asked = work(steering.next_order(3), Work::Settle);
        assert_eq!(said(&events), ["accepted pause", "Pausing"]);
        steering.answer(asked, Ok(Done::new("paused after step 3".into())));
        assert_eq!(said(&events), ["Paused", "done pause: paused after step 3"]);
        send(&commands, RunCommand::Resume);
        assert!(matches!(steering.next_order(3), Order::Train));
        assert_eq!(
            said(&events),
            ["accepted resume", "Running", "done resume: resumed after step 3"]
        );
    }

    #[test]
    fn what_waits_when_a_stop_comes_is_refused_and_the_stop_is_answered_at_the_end() {
        let (commands, mut steering, events) = steering();
        send(&commands, RunCommand::Evaluate);
        let asked = work(steering.next_order(3), Work::Evaluate);
        for command in [RunCommand::Checkpoint, RunCommand::Stop] {
            send(&commands, command);
        }
        said(&events);
        steering.answer(asked, Err("the run is stopping".into()));
        assert!(matches!(steering.next_order(3), Order::End(StopLevel::AfterCheckpoint)));
        let refused = [
            "accepted stop",
            "accepted checkpoint",
            "failed checkpoint: the run is stopping",
            "Stopping",
        ];
        assert_eq!(
            said(&events),
            [["failed evaluate: the run is stopping"].as_slice(), refused.as_slice()].concat()
        );
        let info = CheckpointInfo {
            step: 3,
            path: "checkpoints/step-00000003".into(),
            bytes: 2_000_000,
            seconds: 0.5,
            permanent: false,
        };
        steering.answer_at_the_end(3, &Ok(Ending::Stopped(info)));
        assert_eq!(
            said(&events),
            ["done stop: saved step 3 in checkpoints/step-00000003 (2.0 MB in 0.5s)"]
        );
    }

    #[test]
    fn a_kill_leaves_no_checkpoint_to_a_stop() {
        let (commands, mut steering, events) = steering();
        for command in [RunCommand::Stop, RunCommand::Kill] {
            send(&commands, command);
        }
        assert!(
            matches!(steering.next_order(3), Order::End(StopLevel::Now)) && steering.is_killed()
        );
        said(&events);
        steering.answer_at_the_end(3, &Ok(Ending::Interrupted));
        let stop = "failed stop: the run was killed after step 3, before it saved a checkpoint";
        assert_eq!(said(&events), [stop, "done kill: killed after step 3; nothing saved"]);
    }
}
