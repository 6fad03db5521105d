//! Carries out commands: they are read here, between micro-batches, and each is answered by events.
//!
//! A command is answered when its effect is complete: for a stop when its checkpoint is valid, for a kill when training has
//! ended. A flood of commands takes a bounded part of the trainer's time.

use std::time::{Duration, Instant};

use crate::config::RunConfig;
use crate::engine::error::EngineError;
use crate::engine::trainer::{Reached, Trainer};
use crate::run::{CheckpointError, CheckpointInfo, CommandBatch, CommandNote, ControlState, Outcome, RunCommand, RunEvent, StopLevel, Warning};

/// How often a paused run checks the wall-time limit.
const PAUSE_CHECK: Duration = Duration::from_secs(1);
/// Commands that measure or save may take this much time at once; beyond that, training gets as much time as they take.
const COSTLY_BURST: Duration = Duration::from_secs(10);
/// Batches of commands that are answered while a run ends; the end of the run answers the others.
const LAST_BATCHES: usize = 16;
/// Smallest reserve before the wall-time limit.
const LEAST_RESERVE: Duration = Duration::from_secs(1);
/// Safety factor of the reserve over the measured duration of a step and a save.
const RESERVE_MARGIN: f64 = 1.25;
/// Assumed bytes per second of a save before the first one: a slow network disk.
const SLOW_DISK: f64 = 50e6;

/// State of command handling, with estimates of how long ending takes.
#[derive(Debug, Default)]
pub(super) struct Steering {
    /// Stops and kills, to be answered when the run has ended.
    ending: Vec<CommandBatch>,
    /// The checkpoint that a stop requested.
    last_save: Option<CheckpointInfo>,
    /// When training will have had as much time as the commands that measure and save.
    paid_at: Option<Instant>,
    pace: SlowestTimes,
}

/// How long steps and saves take at most.
#[derive(Debug, Default)]
struct SlowestTimes {
    /// Stage that the slowest step was seen in.
    stage: usize,
    /// Seconds per position of the slowest step.
    slowest_position: f64,
    /// Seconds of the slowest save.
    slowest_save: Option<f64>,
    /// Completed updates when the clock was read last, and the seconds in steps that it showed.
    last_step: u64,
    last_seconds: f64,
}

/// Result of a command: a message, and the checkpoint if one was saved.
type Done = (String, Option<CheckpointInfo>);

impl Steering {
    /// The state of a trainer that resumes from `reached`.
    pub(super) fn starting_at(reached: &Reached) -> Self {
        let pace = SlowestTimes { last_step: reached.step, last_seconds: reached.active_seconds.iter().sum(), ..SlowestTimes::default() };
        Self { pace, ..Self::default() }
    }
}

impl Trainer {
    /// Trains to the end of the plan, or until told to end; then answers the commands that requested the end.
    ///
    /// # Errors
    /// When the device fails, a loss is not finite, or the last checkpoint cannot be written.
    pub(super) fn train(&mut self) -> Result<Outcome, EngineError> {
        let result = self.train_stages();
        self.answer_at_the_end(&result);
        result
    }

    /// Carries out what is waiting; while paused, waits for more. Returns whether training continues.
    ///
    /// # Errors
    /// When a command makes the device fail.
    pub(super) fn obey(&mut self, idx: usize) -> Result<bool, EngineError> {
        self.set_deadline(idx);
        loop {
            // Read before the commands: a raised flag's command is waiting by then, and gets its answer.
            let level = self.inbox.stop_flag().level();
            if level > StopLevel::None {
                self.begin_to_end(level);
                return Ok(false);
            }
            while let Some(answer) = self.inbox.next_repeat() {
                self.say(answer);
            }
            while let Some(batch) = self.inbox.next_batch(self.has_time_for_costly()) {
                self.carry_out(idx, batch)?;
            }
            if self.inbox.stop_flag().is_raised() {
                continue;
            }
            if self.control != ControlState::Paused {
                return Ok(true);
            }
            if self.inbox.is_abandoned() {
                let message = "the control server has ended, so nothing can resume the run: it saves a checkpoint and ends".to_owned();
                self.say(RunEvent::Warning(Warning { message }));
                self.inbox.stop_flag().raise(StopLevel::AfterCheckpoint);
            } else if let Some(batch) = self.inbox.wait(PAUSE_CHECK) {
                self.carry_out(idx, batch)?;
            }
        }
    }

    /// Ends early at the level of the stop flag: with a checkpoint, or without.
    pub(super) fn end(&mut self, idx: usize) -> Result<Outcome, EngineError> {
        // The command that raised the flag may still be waiting to be accepted.
        if self.obey(idx)? || self.control != ControlState::Stopping {
            return Ok(Outcome::Interrupted);
        }
        let ends_stage = self.context.plan.stages.iter().any(|stage| stage.last_step() == self.step);
        match self.try_save(idx, ends_stage) {
            Ok(info) => self.steering.last_save = Some(info),
            // A kill came while the checkpoint was being written.
            Err(EngineError::Checkpoint(CheckpointError::Interrupted)) => return Ok(Outcome::Interrupted),
            Err(error) => return Err(error),
        }
        Ok(Outcome::Stopped)
    }

    /// Remembers how long a save took.
    pub(super) fn count_save(&mut self, info: &CheckpointInfo) {
        let slowest = self.steering.pace.slowest_save.get_or_insert(info.seconds);
        *slowest = slowest.max(info.seconds);
    }

    /// Accepts what waits; only stops and kills are still obeyed, for the flag never falls.
    fn begin_to_end(&mut self, level: StopLevel) {
        self.take_last_commands("the run is stopping");
        if self.steering.ending.is_empty() && self.control != ControlState::Stopping && self.context.config.training.max_walltime.is_some() {
            let message = "training.max_walltime is almost reached: the run saves a checkpoint and stops".to_owned();
            self.say(RunEvent::Warning(Warning { message }));
        }
        if level == StopLevel::Now {
            self.control = ControlState::Finished;
        } else {
            self.change_control(ControlState::Stopping);
        }
    }

    fn take_last_commands(&mut self, refusal: &str) {
        for _ in 0..LAST_BATCHES {
            let Some(batch) = self.inbox.next_batch(true) else { break };
            self.say(RunEvent::CommandAccepted(batch.note(self.step, "")));
            if batch.command.stop_level() > StopLevel::None {
                self.steering.ending.push(batch);
            } else {
                self.answer(&batch, Err(refusal.to_owned()), None);
            }
        }
    }

    fn answer_at_the_end(&mut self, result: &Result<Outcome, EngineError>) {
        self.take_last_commands("the run has ended");
        for batch in std::mem::take(&mut self.steering.ending) {
            let answer = match (batch.command, result) {
                (RunCommand::Kill, Ok(Outcome::Interrupted)) => Ok((format!("ended after step {} without a checkpoint", self.step), None)),
                (RunCommand::Stop, Ok(Outcome::Stopped)) => {
                    let info = self.steering.last_save.clone();
                    Ok((info.as_ref().map_or_else(String::new, saved_text), info))
                }
                (_, Ok(Outcome::Interrupted)) => Err(format!("the run was killed after step {}, before it saved a checkpoint", self.step)),
                (_, Ok(_)) => Ok((format!("the run ended after step {} with a checkpoint", self.step), None)),
                (_, Err(error)) => Err(error.to_string()),
            };
            self.answer(&batch, answer, None);
        }
    }

    fn carry_out(&mut self, idx: usize, batch: CommandBatch) -> Result<(), EngineError> {
        self.say(RunEvent::CommandAccepted(batch.note(self.step, "")));
        let started = Instant::now();
        let result = match batch.command {
            RunCommand::Pause => {
                self.change_control(ControlState::Pausing);
                // A GPU works through its queue for a while after the host has stopped adding to it.
                self.context.workers.device.device.sync()?;
                self.change_control(ControlState::Paused);
                Ok((format!("paused after step {}", self.step), None))
            }
            RunCommand::Resume => {
                self.change_control(ControlState::Running);
                Ok((format!("resumed after step {}", self.step), None))
            }
            RunCommand::Checkpoint => match self.save(idx, false) {
                Some(info) => Ok((saved_text(&info), Some(info))),
                None => Err("see the log; training continues and earlier checkpoints remain valid".to_owned()),
            },
            RunCommand::Evaluate => match self.evaluate(idx)? {
                Some(loss) => Ok((format!("token loss {loss:.4} after step {}", self.step), None)),
                None if self.inbox.stop_flag().is_raised() => Err("the run is stopping".to_owned()),
                None => Err("there is too little validation text".to_owned()),
            },
            RunCommand::Sample => {
                self.sample(idx)?;
                if self.inbox.stop_flag().is_raised() {
                    Err("the run is stopping".to_owned())
                } else {
                    Ok((format!("continued the prompts after step {}", self.step), None))
                }
            }
            RunCommand::Unknown => Err("this version of patchtui does not know the command".to_owned()),
            RunCommand::Stop | RunCommand::Kill => {
                // Its sender raises the flag right after sending; here it is seen before that.
                self.inbox.stop_flag().raise(batch.command.stop_level());
                self.steering.ending.push(batch);
                return Ok(());
            }
        };
        let seconds = batch.command.is_costly().then(|| started.elapsed());
        if let Some(taken) = seconds {
            let paid_at = self.steering.paid_at.map_or(started, |paid_at| paid_at.max(started));
            // The time that it took itself, and as much again for training.
            self.steering.paid_at = Some(paid_at + 2 * taken);
        }
        self.answer(&batch, result, seconds);
        Ok(())
    }

    fn answer(&mut self, batch: &CommandBatch, result: Result<Done, String>, taken: Option<Duration>) {
        let (is_done, message, saved) = match result {
            Ok((message, saved)) => (true, message, saved),
            Err(message) => (false, message, None),
        };
        let seconds = saved.as_ref().map(|info| info.seconds).or(taken.map(|taken| taken.as_secs_f64()));
        let note = CommandNote { seconds, bytes: saved.map(|info| info.bytes), ..batch.note(self.step, message) };
        self.inbox.remember(batch, &note, is_done);
        self.say(if is_done { RunEvent::CommandDone(note) } else { RunEvent::CommandFailed(note) });
    }

    /// Whether a command may take the trainer's time now; a paused run always has time.
    fn has_time_for_costly(&self) -> bool {
        let is_paid = self.steering.paid_at.is_none_or(|paid_at| paid_at <= Instant::now() + COSTLY_BURST);
        is_paid || self.control == ControlState::Paused
    }

    /// Lets the stop flag rise early enough before the wall-time limit for the last step and the last checkpoint.
    fn set_deadline(&mut self, idx: usize) {
        let Some(limit) = self.context.config.training.max_walltime else { return };
        let stage = &self.context.plan.stages[idx];
        let positions = stage.tokens_per_step as f64 / stage.patch_size.get() as f64;
        if self.step > self.steering.pace.last_step {
            let seconds = self.clock.stages(idx).iter().sum();
            self.steering.pace.count_steps(idx, self.step, seconds, positions);
        }
        let pace = &self.steering.pace;
        let save = pace.slowest_save.unwrap_or(self.context.plan.memory.checkpoint as f64 / SLOW_DISK);
        let needed = Duration::try_from_secs_f64(RESERVE_MARGIN * (pace.slowest_position * positions + save)).unwrap_or(Duration::MAX);
        // A limit beyond what the clock can count is none.
        if let Some(deadline) = self.context.started.checked_add(limit.0.saturating_sub(reserve(needed, limit.0))) {
            self.inbox.stop_flag().set_deadline(deadline);
        }
    }
}

impl SlowestTimes {
    /// Counts the steps up to `step` of stage `idx`, after which the clock shows `seconds`.
    fn count_steps(&mut self, idx: usize, step: u64, seconds: f64, positions: f64) {
        let of_each = (seconds - self.last_seconds) / (step - self.last_step) as f64 / positions;
        // Until a step of a new stage was seen, the last stage's positions say how long its own take.
        self.slowest_position = if idx == self.stage { self.slowest_position.max(of_each) } else { of_each };
        (self.stage, self.last_step, self.last_seconds) = (idx, step, seconds);
    }
}

/// When a run that began at `started` has to stop before its first step, if it has a wall-time limit.
pub(super) fn first_deadline(started: Instant, config: &RunConfig) -> Option<Instant> {
    config.training.max_walltime.and_then(|limit| started.checked_add(limit.0.saturating_sub(reserve(LEAST_RESERVE, limit.0))))
}

/// What is left of `limit` for ending, which needs `needed`.
fn reserve(needed: Duration, limit: Duration) -> Duration {
    needed.max(LEAST_RESERVE).min(limit / 2)
}

fn saved_text(info: &CheckpointInfo) -> String {
    format!("step {} is saved in {} ({:.1} MB in {:.1} s)", info.step, info.path.display(), info.bytes as f64 / 1e6, info.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_what_ending_needs_but_at_most_half_the_limit() {
        let seconds = Duration::from_secs;
        assert_eq!(reserve(seconds(0), seconds(3600)), seconds(1));
        assert_eq!(reserve(seconds(90), seconds(3600)), seconds(90));
        assert_eq!(reserve(seconds(90), seconds(60)), seconds(30));
        assert_eq!(reserve(seconds(0), seconds(1)), Duration::from_millis(500));
    }

    #[test]
    fn the_slowest_step_of_a_stage_counts_and_a_new_stage_starts_over() {
        let mut pace = SlowestTimes::default();
        pace.count_steps(0, 1, 3.0, 10.0);
        pace.count_steps(0, 3, 5.0, 10.0);
        assert_eq!(pace.slowest_position.to_bits(), 0.3_f64.to_bits());
        pace.count_steps(1, 4, 13.0, 40.0);
        assert_eq!(pace.slowest_position.to_bits(), 0.2_f64.to_bits());
    }
}
