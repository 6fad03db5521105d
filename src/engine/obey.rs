//! How the trainer obeys: commands are read here, between micro-batches, and each is answered by events.

use std::time::Duration;

use crate::engine::error::EngineError;
use crate::engine::trainer::Trainer;
use crate::run::{CommandEnvelope, CommandNote, ControlState, RunCommand, RunEvent, StopLevel};

/// How often a paused run looks at the wall-time limit.
const PAUSE_LOOK: Duration = Duration::from_secs(1);
/// Share of the wall time that is left for the last step and the last checkpoint.
const WALLTIME_RESERVE: f64 = 0.02;

impl Trainer {
    /// Carries out what is waiting; while paused, waits for more. Says whether training goes on.
    ///
    /// # Errors
    /// When something that was asked for makes the device fail.
    pub(super) fn obey(&mut self, idx: usize) -> Result<bool, EngineError> {
        loop {
            // Read before the commands: a raised flag's command is in the channel by then, and gets its answer.
            let level = self.inbox.stop_flag().level();
            while let Some(envelope) = self.inbox.next_waiting() {
                self.carry_out(idx, &envelope)?;
            }
            // The flag never falls: whatever else was asked after a stop, the run ends.
            if self.control != ControlState::Finished && (level > StopLevel::None || self.out_of_time()) {
                self.change_control(ControlState::Stopping);
            }
            match (level, self.control) {
                (StopLevel::Now, _) | (_, ControlState::Finished) => {
                    self.control = ControlState::Finished;
                    return Ok(false);
                }
                (_, ControlState::Stopping) => return Ok(false),
                (_, ControlState::Paused) => {
                    if let Some(envelope) = self.inbox.wait(PAUSE_LOOK) {
                        self.carry_out(idx, &envelope)?;
                    }
                }
                _ => return Ok(true),
            }
        }
    }

    fn carry_out(&mut self, idx: usize, envelope: &CommandEnvelope) -> Result<(), EngineError> {
        let note = |step, message: String| CommandNote { id: envelope.id.clone(), command: envelope.command, from: envelope.from.clone(), step, message };
        self.say(RunEvent::CommandAccepted(note(self.step, String::new())));
        let result = match envelope.command {
            RunCommand::Pause => {
                self.change_control(ControlState::Pausing);
                self.change_control(ControlState::Paused);
                Ok(format!("paused after step {}", self.step))
            }
            RunCommand::Resume => {
                self.change_control(ControlState::Running);
                Ok(format!("going on after step {}", self.step))
            }
            RunCommand::Checkpoint => match self.save(idx, false) {
                Some(info) => Ok(format!("step {} is saved in {}", info.step, info.path.display())),
                None => Err("see the log; training goes on and the earlier checkpoints are valid".to_owned()),
            },
            RunCommand::Evaluate => Ok(match self.evaluate(idx)? {
                Some(loss) => format!("token loss {loss:.4} after step {}", self.step),
                None => "there is too little validation text, or the run is stopping".to_owned(),
            }),
            RunCommand::Sample => {
                self.sample(idx)?;
                Ok(format!("continued the prompts after step {}", self.step))
            }
            RunCommand::Stop => {
                self.change_control(ControlState::Stopping);
                Ok(format!("stopping after step {} with a checkpoint", self.step))
            }
            RunCommand::Kill => {
                self.control = ControlState::Finished;
                Ok(format!("ending after step {} without a checkpoint", self.step))
            }
        };
        let answer = match result {
            Ok(message) => RunEvent::CommandDone(note(self.step, message)),
            Err(message) => RunEvent::CommandFailed(note(self.step, message)),
        };
        self.say(answer);
        Ok(())
    }

    /// Whether the wall-time limit is close enough to stop.
    fn out_of_time(&self) -> bool {
        self.context.config.training.max_walltime.is_some_and(|limit| self.context.started.elapsed() >= limit.0.mul_f64(1.0 - WALLTIME_RESERVE))
    }
}
