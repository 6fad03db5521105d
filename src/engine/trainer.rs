//! The training loop, to be read as the method section of the paper: for each stage, take steps, report, do what is due.
//!
//! Commands are read between micro-batches. Nothing is read back from a GPU except on steps that report.

use std::time::Instant;

use burn::tensor::{Bool, Tensor};

use crate::config::{OptimizerState, RunConfig};
use crate::data::{Loader, TokenStream, Tokenizer};
use crate::engine::accumulate::{Accumulation, StepSum};
use crate::engine::batch::Batch;
use crate::engine::checkpoint::{self, Snapshot};
use crate::engine::clock::Clock;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::obey::Steering;
use crate::engine::ops::positions::Positions;
use crate::engine::optimizer::{AdamW, Update};
use crate::engine::start::RunFacts;
use crate::engine::step::StepInput;
use crate::engine::workers::Workers;
use crate::plan::{RunPlan, StagePlan};
use crate::run::{
    CheckpointError, CheckpointFailure, CheckpointInfo, Checkpoints, ControlChange, ControlState, EventSender, Inbox, Outcome, RunEvent, StageLedger,
    StageStart, StepMetrics, StopLevel, TrainerState,
};

/// What does not change while a run trains.
#[derive(Debug)]
pub(super) struct RunContext {
    /// Configuration of the run.
    pub(super) config: RunConfig,
    /// Stages, schedule and costs that follow from it.
    pub(super) plan: RunPlan,
    /// The device and the threads that compute.
    pub(super) workers: Workers,
    /// Training text in its order.
    pub(super) loader: Loader,
    /// Validation text.
    pub(super) validation: TokenStream,
    /// Turns text into ids and back.
    pub(super) tokenizer: Tokenizer,
    /// Fingerprint of the token stream.
    pub(super) data_fingerprint: String,
    /// The run's checkpoints.
    pub(super) checkpoints: Checkpoints,
    /// Receives all events of the run.
    pub(super) events: EventSender,
    /// When this attempt began.
    pub(super) started: Instant,
}

/// What changes while a run trains.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) context: RunContext,
    pub(super) inbox: Inbox,
    pub(super) steering: Steering,
    /// `None` only while it is updated, so that no second copy of the weights is held.
    model: Option<LlamaForCausalLM>,
    pub(super) optimizer: AdamW,
    /// Completed updates.
    pub(super) step: u64,
    pub(super) clock: Clock,
    pub(super) control: ControlState,
    pub(super) last_token_loss: Option<f64>,
    /// Whether everything that was due after the last update was measured; a stop may have come in between.
    pub(super) has_measured: bool,
    /// On a GPU: true as soon as a loss or gradient was not finite; no update is made from then on.
    poisoned: Option<Tensor<1, Bool>>,
}

/// Position that earlier attempts reached.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    /// Completed updates.
    pub(super) step: u64,
    /// Time in steps of each stage, in seconds.
    pub(super) active_seconds: Vec<f64>,
    /// Whether everything that was due after the last update was measured.
    pub(super) has_measured: bool,
}

/// Loss and gradient norm of one update, still on the device.
struct UpdateResult {
    /// Mean over scored targets, before the update.
    loss: Tensor<1>,
    /// Global gradient norm before clipping.
    norm: Tensor<1>,
    learning_rate: f64,
}

impl Trainer {
    /// A trainer that resumes from what earlier attempts `reached`, with `model` and `optimizer`.
    pub(super) fn new(context: RunContext, inbox: Inbox, model: LlamaForCausalLM, optimizer: AdamW, reached: Reached) -> Self {
        Self {
            context,
            inbox,
            steering: Steering::starting_at(&reached),
            model: Some(model),
            optimizer,
            step: reached.step,
            clock: Clock::new(reached.active_seconds),
            control: ControlState::Starting,
            last_token_loss: None,
            has_measured: reached.has_measured,
            poisoned: None,
        }
    }

    /// Trains to the end of the plan, or until told to end.
    ///
    /// # Errors
    /// When the device fails, a loss is not finite, or the last checkpoint cannot be written.
    pub(super) fn train_stages(&mut self) -> Result<Outcome, EngineError> {
        self.change_control(ControlState::Running);
        if !self.has_measured {
            // The start of a run, or what an attempt that was told to end left out.
            let idx = self.context.plan.stage_idx_after(self.step.saturating_sub(1));
            let stage = self.context.plan.stages[idx].clone();
            if !self.measure_and_save(idx, &stage, true)? {
                return self.end(idx);
            }
        }
        for idx in self.context.plan.stage_idx_after(self.step)..self.context.plan.stages.len() {
            let stage = self.context.plan.stages[idx].clone();
            self.enter(idx, &stage);
            while self.step < stage.last_step() {
                let Some(measured) = self.take_step(idx, &stage)? else { return self.end(idx) };
                self.report(idx, &stage, &measured)?;
                if !self.do_what_is_due(idx, &stage)? {
                    return self.end(idx);
                }
            }
        }
        Ok(Outcome::Completed)
    }

    /// Completed updates.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Time in steps over all attempts, in seconds.
    pub(super) fn active_seconds(&self) -> f64 {
        self.clock.total_seconds()
    }

    /// The newest token-level loss.
    pub(super) fn last_token_loss(&self) -> Option<f64> {
        self.last_token_loss
    }

    /// What this trainer works with.
    pub(super) fn context(&self) -> &RunContext {
        &self.context
    }

    /// Begins or resumes a stage. Moments are reset by its first update, so that a checkpoint of the switch still holds what
    /// the stage before ended with, even one that a command requests after the switch.
    fn enter(&mut self, idx: usize, stage: &StagePlan) {
        if self.step > stage.first_step {
            return;
        }
        let optimizer_reset = idx == 0 || stage.optimizer_state == OptimizerState::Reset;
        let start = StageStart { stage: idx, patch_size: stage.patch_size, step: self.step, tokens: stage.first_token, optimizer_reset };
        self.say(RunEvent::StageStarted(start));
    }

    /// One update: all micro-batches, one clip, one step of the optimizer. `None` if the run was told to end.
    fn take_step(&mut self, idx: usize, stage: &StagePlan) -> Result<Option<UpdateResult>, EngineError> {
        let shared = self.model().model.shared_input(Positions::of_sequence(stage.context_length));
        let input = StepInput { shared, scale: 1.0 / stage.targets_per_step() as f64, recompute: self.context.config.training.recompute };
        let mut sums = Accumulation::default();
        let together = self.context.workers.device.micro_batches_together;
        for first in (0..stage.num_micro_batches).step_by(together) {
            if !self.obey(idx)? {
                return Ok(None);
            }
            self.clock.run();
            let group: Vec<Batch> = (first..stage.num_micro_batches.min(first + together)).map(|micro_idx| self.micro_batch(stage, micro_idx)).collect();
            let is_complete = sums.add(&self.context.workers, self.model(), &input, group)?;
            self.clock.rest();
            if !is_complete {
                // The step is dropped.
                return Ok(None);
            }
        }
        self.clock.run();
        // A stage has at least one micro-batch and a model at least one weight.
        let StepSum { loss, gradients } = sums.finish();
        let (Some(loss), Some(norm)) = (loss, gradients.norm()) else { return Ok(None) };
        let measured = UpdateResult { loss: loss * input.scale, norm, learning_rate: stage.schedule.learning_rate(self.step - stage.first_step) };
        let skip = self.guard(&measured)?;
        let update = Update { learning_rate: measured.learning_rate, norm: measured.norm.clone(), skip };
        if self.step == stage.first_step && idx > 0 && stage.optimizer_state == OptimizerState::Reset {
            self.optimizer.reset();
        }
        self.model = self.model.take().map(|model| self.optimizer.step(model, gradients, &update));
        self.step += 1;
        self.has_measured = false;
        self.clock.rest();
        self.clock.count_step();
        Ok(Some(measured))
    }

    /// Sequences `micro_idx` of the next update, uploaded.
    fn micro_batch(&mut self, stage: &StagePlan, micro_idx: usize) -> Batch {
        let waiting = Instant::now();
        let sequence = stage.sequence_tokens();
        let mut tokens = vec![0; stage.micro_batch_size * sequence];
        let start = self.data_position(stage) + (micro_idx * tokens.len()) as u64;
        for (idx, out) in tokens.chunks_mut(sequence).enumerate() {
            self.context.loader.read(start + (idx * sequence) as u64, out);
        }
        self.clock.count_data_wait(waiting.elapsed());
        Batch::new(&tokens, stage.micro_batch_size, stage.patch_size, &self.context.workers.device.device)
    }

    /// Where the next update begins in the order of the data.
    fn data_position(&self, stage: &StagePlan) -> u64 {
        stage.first_data_token + (self.step - stage.first_step) * stage.tokens_per_step
    }

    /// Keeps numbers that are not finite out of the weights: on the CPU at once, on a GPU by a flag that stays on the device.
    fn guard(&mut self, measured: &UpdateResult) -> Result<Option<Tensor<1, Bool>>, EngineError> {
        if self.context.workers.device.is_cpu {
            Self::check_finite(measured, self.step + 1)?;
            return Ok(None);
        }
        let broken = (measured.loss.clone() + measured.norm.clone()).is_finite().bool_not();
        let poisoned = self.poisoned.take().map_or_else(|| broken.clone(), |poisoned| poisoned.bool_or(broken.clone()));
        self.poisoned = Some(poisoned.clone());
        Ok(Some(poisoned))
    }

    /// Fails if a loss or gradient since the last check was not finite: all updates since then were skipped.
    fn check_poison(&self) -> Result<(), EngineError> {
        let Some(flag) = &self.poisoned else { return Ok(()) };
        let is_poisoned = flag.clone().try_into_data()?.iter::<bool>().any(|is_true| is_true);
        if is_poisoned { Err(EngineError::Poisoned { step: self.step }) } else { Ok(()) }
    }

    fn check_finite(measured: &UpdateResult, step: u64) -> Result<(), EngineError> {
        for (what, number) in [("loss", &measured.loss), ("gradient norm", &measured.norm)] {
            let value = read(number)?;
            if !value.is_finite() {
                return Err(EngineError::NonFinite { what, step, value });
            }
        }
        Ok(())
    }

    /// Reports the newest update, if it is a reporting step.
    fn report(&mut self, idx: usize, stage: &StagePlan, measured: &UpdateResult) -> Result<(), EngineError> {
        if !self.step.is_multiple_of(self.context.plan.cadences.report) && self.step != stage.last_step() {
            return Ok(());
        }
        self.clock.run();
        let (loss, grad_norm) = (read(&measured.loss)?, read(&measured.norm)?);
        self.clock.rest();
        Self::check_finite(measured, self.step)?;
        self.check_poison()?;
        let lap = self.clock.lap(idx);
        let cost = self.context.plan.cost_after(self.step);
        let position = self.data_position(stage) - stage.tokens_per_step;
        self.say(RunEvent::StepCompleted(StepMetrics {
            step: self.step,
            stage: idx,
            patch_size: stage.patch_size,
            epoch: self.context.loader.order.place(position).epoch,
            tokens: cost.tokens,
            positions: cost.positions,
            flops: cost.flops,
            loss,
            learning_rate: measured.learning_rate,
            grad_norm,
            step_seconds: lap.step_seconds,
            active_seconds: self.clock.total_seconds(),
            tokens_per_second: stage.tokens_per_step as f64 / lap.step_seconds,
            data_wait_seconds: lap.data_wait_seconds,
        }));
        Ok(())
    }

    /// Measures and saves at their cadences and at the end of a stage. Returns whether training continues.
    fn do_what_is_due(&mut self, idx: usize, stage: &StagePlan) -> Result<bool, EngineError> {
        let is_save_due = self.context.plan.cadences.checkpoint.is_some_and(|every| self.step.is_multiple_of(every));
        self.measure_and_save(idx, stage, is_save_due)
    }

    /// Measures what is due, closes the stage if this is its end, and then saves if that is due, too.
    ///
    /// Returns whether training continues. If it does not, nothing was saved, and a stage at its end is still open: the attempt
    /// that resumes from here measures again, and then closes it.
    fn measure_and_save(&mut self, idx: usize, stage: &StagePlan, is_save_due: bool) -> Result<bool, EngineError> {
        let ends = self.step == stage.last_step();
        if !self.measure(idx, ends || self.step == 0)? || self.inbox.stop_flag().level() == StopLevel::Now {
            return Ok(false);
        }
        if ends {
            self.say(RunEvent::StageCompleted(self.ledger(idx, stage)));
        }
        if self.step == self.context.plan.steps {
            // There is no later try, and a run without its last checkpoint is not complete.
            match self.try_save(idx, true) {
                // A kill came while it was being written.
                Err(EngineError::Checkpoint(CheckpointError::Interrupted)) => return Ok(false),
                saved => drop(saved?),
            }
        } else if is_save_due || ends {
            self.save(idx, ends);
        }
        Ok(true)
    }

    /// Cost and duration of stage `idx`.
    fn ledger(&self, idx: usize, stage: &StagePlan) -> StageLedger {
        let cost = stage.cost(stage.steps);
        let active_seconds = self.clock.stage_seconds(idx);
        StageLedger {
            stage: idx,
            patch_size: stage.patch_size,
            step: self.step,
            steps: stage.steps,
            tokens: cost.tokens,
            positions: cost.positions,
            flops: cost.flops,
            active_seconds,
            tokens_per_second: cost.tokens as f64 / active_seconds,
        }
    }

    /// Saves; a failure is reported, and training continues with the earlier checkpoints intact.
    pub(super) fn save(&mut self, idx: usize, permanent: bool) -> Option<CheckpointInfo> {
        match self.try_save(idx, permanent) {
            Ok(info) => Some(info),
            Err(error) => {
                self.say(RunEvent::CheckpointFailed(CheckpointFailure { step: self.step, error: error.to_string() }));
                None
            }
        }
    }

    /// Saves the state after the last completed update.
    pub(super) fn try_save(&mut self, idx: usize, permanent: bool) -> Result<CheckpointInfo, EngineError> {
        self.check_poison()?;
        let started = Instant::now();
        let context = &self.context;
        let facts = RunFacts {
            config: &context.config,
            plan: &context.plan,
            order: &context.loader.order,
            data_fingerprint: &context.data_fingerprint,
            tokenizer: context.tokenizer.fingerprint(),
        };
        let state = TrainerState { optimizer_count: self.optimizer.count, has_measured: self.has_measured, ..facts.state_after(self.step) };
        let snapshot = Snapshot { model: self.model(), optimizer: &self.optimizer, state, active_seconds: self.clock.stages(idx), permanent };
        let (saved, is_new) = checkpoint::save(&context.checkpoints, snapshot, &context.events, self.inbox.stop_flag())?;
        let path = saved.path.file_name().map_or_else(Default::default, |name| std::path::Path::new("checkpoints").join(name));
        let seconds = started.elapsed().as_secs_f64();
        let info = CheckpointInfo { step: self.step, path, bytes: saved.manifest.bytes(), seconds, permanent: saved.manifest.permanent };
        if is_new {
            self.count_save(&info);
            self.say(RunEvent::CheckpointSaved(info.clone()));
        }
        Ok(info)
    }

    pub(super) fn change_control(&mut self, state: ControlState) {
        if self.control != state {
            self.control = state;
            self.say(RunEvent::ControlChanged(ControlChange { state, step: self.step }));
        }
    }

    pub(super) fn say(&self, event: RunEvent) {
        self.context.events.send(event);
    }

    pub(super) fn model(&self) -> &LlamaForCausalLM {
        self.model.as_ref().expect("the model is absent only inside an update")
    }
}

/// The one number of a `[1]` tensor; waits for the device.
pub(super) fn read(number: &Tensor<1>) -> Result<f64, EngineError> {
    let data = number.clone().try_into_data()?;
    Ok(data.iter::<f64>().next().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests;
