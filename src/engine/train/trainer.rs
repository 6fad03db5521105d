//! The training loop, which reads like the method section of the paper: for each stage, for each
//! step, take the step, report, do what is due.
//!
//! Commands are executed between micro-batches. Nothing is read back from a GPU except on steps
//! that report.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::OptimizerState;
use crate::data::Loader;
use crate::engine::error::EngineError;
use crate::engine::faults::unreported;
use crate::engine::objective::{Objective, StepText};
use crate::engine::positions::Positions;
use crate::engine::step::StepInput;
use crate::engine::train::accumulate::{Accumulation, Computing};
use crate::engine::train::audit::{Mismatch, audit};
use crate::engine::train::clock::Clock;
use crate::engine::train::facts::{Position, RunFacts};
use crate::engine::train::learner::{Learner, Measured, UpdateRule};
use crate::engine::train::measure::{MeasuredText, Measurement, Measuring};
use crate::engine::train::obey::{Answer, Done, Ending, Order, Steering, Work};
use crate::engine::train::save::{SavePoint, Saved, Saving};
use crate::engine::train::start::Start;
use crate::engine::train::wall_time::{StepTime, TimeLimit};
use crate::engine::workers::Workers;
use crate::plan::{CostedStage, StagePlan};
use crate::record::{
    CheckpointError, CheckpointFailure, CheckpointInfo, Checkpoints, EventSender, Outcome, RunEnd,
    RunEvent, StageLedger, StageStart, StepMetrics, Trouble, Warning,
};
use crate::steer::{Inbox, StopLevel};
use crate::text::format;

/// Trains one run.
#[derive(Debug)]
pub(super) struct Trainer {
    facts: Arc<RunFacts>,
    workers: Rc<Workers>,
    loader: Loader,
    objective: Objective,
    learner: Learner,
    measuring: Measuring,
    saving: Saving,
    steering: Steering,
    events: EventSender,
    clock: Clock,
    /// Completed updates.
    step: u64,
}

/// Inputs of a trainer, apart from its initial state.
#[derive(Debug)]
pub(super) struct Equipment {
    /// What does not change during training.
    pub(super) facts: Arc<RunFacts>,
    /// The device and its threads.
    pub(super) workers: Workers,
    /// Training text in the data order.
    pub(super) loader: Loader,
    /// Text for measurements.
    pub(super) text: MeasuredText,
    /// The run's checkpoints.
    pub(super) checkpoints: Checkpoints,
    /// Receives all events of the run.
    pub(super) events: EventSender,
    /// When this attempt began.
    pub(super) started: Instant,
}

impl Trainer {
    /// A trainer that continues from `start` and takes commands from `inbox`.
    pub(super) fn new(equipment: Equipment, inbox: Inbox, start: Start) -> Self {
        let Equipment { facts, workers, loader, text, checkpoints, events, started } = equipment;
        let Start { model, optimizer, reached, .. } = start;
        let workers = Rc::new(workers);
        let measuring =
            Measuring::new(Arc::clone(&facts), Rc::clone(&workers), text, events.clone());
        Self {
            learner: Learner::new(model, optimizer),
            measuring: measuring.resumed_at(&reached),
            saving: Saving::new(
                Arc::clone(&facts),
                checkpoints,
                events.clone(),
                inbox.stop_flag().clone(),
            ),
            steering: Steering::new(
                inbox,
                events.clone(),
                TimeLimit::of(&facts, started, &reached),
            ),
            step: reached.step,
            clock: Clock::new(reached.active_seconds),
            facts,
            workers,
            loader,
            objective: Objective::Pretraining,
            events,
        }
    }

    /// Trains to the end of the plan, or until told to end; then answers the commands that asked
    /// for it.
    ///
    /// # Errors
    /// When the device fails, a loss is not finite, or the last checkpoint cannot be written.
    pub(super) fn train(&mut self) -> Result<Outcome, EngineError> {
        let result = self.train_stages();
        self.steering.answer_at_the_end(self.step, &result);
        Ok(result?.outcome())
    }

    /// Whether the CPU computes.
    pub(super) fn is_on_cpu(&self) -> bool {
        self.workers.compute.device.is_cpu
    }

    /// Abandons tensors on a device that does not respond any more.
    pub(super) fn leave_device(&mut self) {
        self.learner.leak();
    }

    /// The last event of the run.
    pub(super) fn end_of_run(&self, outcome: Outcome, error: Option<Trouble>) -> RunEnd {
        RunEnd {
            outcome,
            step: self.step,
            tokens: self.facts.plan.cost_after(self.step).tokens,
            active_seconds: self.clock.total_seconds(),
            token_loss: self.measuring.last_token_loss(),
            whole: self.measuring.whole_loss(),
            error,
        }
    }

    /// The method: for each stage, for each step, take the step, report, do what is due.
    fn train_stages(&mut self) -> Result<Ending, EngineError> {
        let facts = Arc::clone(&self.facts);
        let plan = &facts.plan;
        self.steering.begin(self.step);
        if !self.measuring.has_measured(self.step) {
            // The start of a run, or measurements that a stopped attempt has skipped.
            let stage = &plan.stages[plan.stage_idx_after(self.step.saturating_sub(1))];
            if !self.measure_and_save(stage, true)? {
                return self.end(stage.idx);
            }
        }
        for stage in &plan.stages[plan.stage_idx_after(self.step)..] {
            self.enter(stage);
            let shared = self
                .learner
                .model()
                .model
                .shared_input(Positions::of_sequence(stage.context_length));
            let mut input =
                StepInput { shared, scale: 1.0, recompute: facts.config.training.recompute };
            while self.step < stage.last_step() {
                let Some(measured) = self.take_step(stage, &mut input)? else {
                    return self.end(stage.idx);
                };
                self.report(stage, &measured)?;
                if !self.do_what_is_due(stage)? {
                    return self.end(stage.idx);
                }
            }
        }
        Ok(Ending::Completed)
    }

    /// Begins or resumes a stage. The optimizer state is reset by its first update, so that a
    /// checkpoint at the boundary still has the final state of the previous stage, even one
    /// requested by a command after the boundary.
    fn enter(&self, stage: &StagePlan) {
        if self.step > stage.first_step {
            return;
        }
        let optimizer_reset = stage.idx == 0 || stage.optimizer_state == OptimizerState::Reset;
        let start = StageStart {
            stage: stage.idx,
            patch_size: stage.patch_size,
            step: self.step,
            tokens: stage.first_token,
            optimizer_reset,
        };
        self.events.send(RunEvent::StageStarted(start));
    }

    /// One update: all micro-batches, one clipping, one optimizer step. `None` if the run was told
    /// to end.
    fn take_step(
        &mut self,
        stage: &StagePlan,
        input: &mut StepInput,
    ) -> Result<Option<Measured>, EngineError> {
        let data_position = self.data_position(stage);
        input.scale =
            StepText { loader: &self.loader, objective: &self.objective, data_position, stage }
                .scale();
        let mut sum = Accumulation::default();
        while !sum.is_complete(stage) {
            if !self.obey(stage)? {
                return Ok(None);
            }
            let with = Computing { workers: &self.workers, model: self.learner.computing(), input };
            let text =
                StepText { loader: &self.loader, objective: &self.objective, data_position, stage };
            if !sum.add_next(with, text, &mut self.clock)? {
                // An incomplete step is dropped.
                return Ok(None);
            }
            if sum.num_micro_batches == 1 && self.is_audit_due() {
                let mismatch = audit(&sum, with, text)?;
                self.warn_of_mismatch(mismatch);
            }
        }
        self.clock.run();
        let rule = UpdateRule {
            step: self.step + 1,
            learning_rate: stage.schedule.learning_rate(self.step - stage.first_step),
            resets_moments: self.step == stage.first_step
                && stage.idx > 0
                && stage.optimizer_state == OptimizerState::Reset,
        };
        let measured = self.learner.update(sum.finish(input), rule)?;
        self.step += 1;
        self.clock.rest();
        self.clock.count_step();
        Ok(Some(measured))
    }

    /// Whether the current step is audited.
    fn is_audit_due(&self) -> bool {
        let every = self.facts.config.training.audit_every;
        every > 0 && (self.step + 1).is_multiple_of(every)
    }

    fn warn_of_mismatch(&self, mismatch: Option<Mismatch>) {
        if let Some(mismatch) = mismatch {
            let message = format!(
                "audit of step {}: a micro-batch was {mismatch}: this hardware may compute wrong \
                 results",
                self.step + 1
            );
            self.events.send(RunEvent::Warning(Warning { message }));
        }
    }

    /// Position of the next update in the data order.
    fn data_position(&self, stage: &StagePlan) -> u64 {
        stage.first_data_token + (self.step - stage.first_step) * stage.tokens_per_step
    }

    /// Reports the newest update, if it is a reporting step.
    fn report(&mut self, stage: &StagePlan, measured: &Measured) -> Result<(), EngineError> {
        let plan = &self.facts.plan;
        if !self.step.is_multiple_of(plan.cadences.report) && self.step != stage.last_step() {
            return Ok(());
        }
        self.clock.run();
        let numbers = measured.read()?;
        self.clock.rest();
        numbers.check_finite(self.step)?;
        self.learner.check_poison(self.step)?;
        // After some panics of a device's own thread Burn continues, with memory that was never
        // written.
        if let Some(reason) = (!self.is_on_cpu()).then(unreported).flatten() {
            return Err(EngineError::DevicePanic { reason });
        }
        let lap = self.clock.lap(stage.idx);
        let cost = plan.cost_after(self.step);
        let position = self.data_position(stage) - stage.tokens_per_step;
        self.events.send(RunEvent::StepCompleted(StepMetrics {
            step: self.step,
            stage: stage.idx,
            patch_size: stage.patch_size,
            epoch: self.loader.order.place(position).epoch,
            tokens: cost.tokens,
            positions: cost.positions,
            flops: cost.flops,
            loss: numbers.loss,
            learning_rate: numbers.learning_rate,
            grad_norm: numbers.norm,
            step_seconds: lap.step_seconds,
            active_seconds: self.clock.total_seconds(),
            tokens_per_second: stage.tokens_per_step as f64 / lap.step_seconds,
            data_wait_seconds: lap.data_wait_seconds,
        }));
        Ok(())
    }

    /// Measures and saves at their intervals and at the end of a stage. Returns whether training
    /// continues.
    fn do_what_is_due(&mut self, stage: &StagePlan) -> Result<bool, EngineError> {
        let is_save_due = self
            .facts
            .plan
            .cadences
            .checkpoint
            .is_some_and(|every| self.step.is_multiple_of(every));
        self.measure_and_save(stage, is_save_due)
    }

    /// Makes the measurements that are due, completes the stage if this is its end, and then saves
    /// if that is due, too.
    ///
    /// Returns whether training continues. If it does not, nothing was saved, and a stage at its
    /// end is not completed: the attempt that resumes here measures again, and then completes
    /// it.
    fn measure_and_save(
        &mut self,
        stage: &StagePlan,
        is_save_due: bool,
    ) -> Result<bool, EngineError> {
        let ends = self.step == stage.last_step();
        let always = ends || self.step == 0;
        if !self.measuring.measure_due(self.learner.model(), self.place(stage.idx), always)?
            || self.steering.is_killed()
        {
            return Ok(false);
        }
        if ends {
            self.events.send(RunEvent::StageCompleted(self.ledger(stage)));
            self.log_device_memory(stage);
        }
        if self.step == self.facts.plan.steps {
            // There is no later attempt, and a run without its last checkpoint is not completed.
            match self.try_save(stage.idx, true) {
                // A kill arrived while it was being written.
                Err(EngineError::Checkpoint(CheckpointError::Interrupted)) => return Ok(false),
                saved => drop(saved?),
            }
        } else if is_save_due || ends {
            self.save(stage.idx, ends);
        }
        Ok(true)
    }

    /// Memory that Burn holds on a GPU, to judge whether a larger micro-batch would fit.
    fn log_device_memory(&self, stage: &StagePlan) {
        let memory = self.workers.compute.device.memory().filter(|_| !self.is_on_cpu());
        if let Some((used, reserved)) = memory {
            let (used, reserved) = (format::bytes(used), format::bytes(reserved));
            tracing::info!(
                "device memory after the stage of K = {}: {used} in use, {reserved} reserved",
                stage.patch_size
            );
        }
    }

    /// Cost and duration of `stage`.
    fn ledger(&self, stage: &StagePlan) -> StageLedger {
        let cost = stage.cost(stage.steps);
        let active_seconds = self.clock.stage_seconds(stage.idx);
        StageLedger {
            stage: stage.idx,
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
    fn save(&mut self, idx: usize, permanent: bool) -> Option<CheckpointInfo> {
        self.try_save(idx, permanent)
            .inspect_err(|error| {
                self.events.send(RunEvent::CheckpointFailed(CheckpointFailure {
                    step: self.step,
                    error: error.to_string(),
                }));
            })
            .ok()
    }

    /// Saves the state after the last completed update.
    fn try_save(&mut self, idx: usize, permanent: bool) -> Result<CheckpointInfo, EngineError> {
        let has_measured = self.measuring.has_measured(self.step);
        let token_loss = self.measuring.token_loss_at(self.step);
        let point = SavePoint {
            step: self.step,
            has_measured,
            active_seconds: self.clock.stages(idx),
            token_loss,
            permanent,
        };
        let Saved { info, is_new } = self.saving.save(&self.learner, point)?;
        if is_new {
            self.steering.count_save(&info);
            self.events.send(RunEvent::CheckpointSaved(info.clone()));
        }
        Ok(info)
    }

    /// Executes the waiting commands. Returns whether training continues.
    fn obey(&mut self, stage: &StagePlan) -> Result<bool, EngineError> {
        let positions = stage.tokens_per_step as f64 / stage.patch_size.get() as f64;
        self.steering.keep_time(StepTime {
            place: self.place(stage.idx),
            positions,
            seconds: self.clock.stages(stage.idx).iter().sum(),
        });
        loop {
            match self.steering.next_order(self.step) {
                Order::Train => return Ok(true),
                Order::End(_) => return Ok(false),
                Order::Work(work, asked) => {
                    let answer = self.carry_out(stage.idx, work)?;
                    self.steering.answer(asked, answer);
                }
            }
        }
    }

    /// Does the work of a command.
    fn carry_out(&mut self, idx: usize, work: Work) -> Result<Answer, EngineError> {
        let (step, place) = (self.step, self.place(idx));
        Ok(match work {
            Work::Settle => {
                // A GPU works on its queue for a while after the host has stopped adding to it.
                self.workers.compute.device.device.sync()?;
                Ok(Done::new(format!("paused after step {step}")))
            }
            Work::Save => self.save(idx, false).map(Done::saved).ok_or(
                "see the log; training continues and earlier checkpoints remain valid".to_owned(),
            ),
            Work::Evaluate => match self.measuring.token_loss(self.learner.model(), place)? {
                Measurement::Made(loss) => {
                    Ok(Done::new(format!("token loss {loss:.3} after step {step}")))
                }
                Measurement::LeftOut => Err("the run is stopping".to_owned()),
                Measurement::NoText => Err("there is too little validation text".to_owned()),
            },
            Work::Sample => match self.measuring.samples(self.learner.model(), place)? {
                Measurement::LeftOut => Err("the run is stopping".to_owned()),
                Measurement::Made(()) | Measurement::NoText => {
                    Ok(Done::new(format!("generated samples after step {step}")))
                }
            },
        })
    }

    /// Ends early at the level of the stop flag: with or without a checkpoint.
    fn end(&mut self, idx: usize) -> Result<Ending, EngineError> {
        // The command that raised the flag may still be waiting to be accepted.
        let Order::End(StopLevel::AfterCheckpoint) = self.steering.next_order(self.step) else {
            return Ok(Ending::Interrupted);
        };
        let ends_stage = self.facts.plan.stages.iter().any(|stage| stage.last_step() == self.step);
        match self.try_save(idx, ends_stage) {
            Ok(info) => Ok(Ending::Stopped(info)),
            // A kill arrived while the checkpoint was being written.
            Err(EngineError::Checkpoint(CheckpointError::Interrupted)) => Ok(Ending::Interrupted),
            Err(error) => Err(error),
        }
    }

    /// The current position, in stage `idx`.
    fn place(&self, idx: usize) -> Position {
        Position { step: self.step, stage_idx: idx }
    }
}

#[cfg(test)]
impl Trainer {
    /// Facts about the run.
    pub(super) fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// Computes the first micro-batch, lets `break_it` change the learner, and audits; returns the
    /// text of the warning.
    pub(super) fn audit_of_first_step(
        &mut self,
        break_it: &mut dyn FnMut(&mut Learner),
    ) -> Option<String> {
        let facts = Arc::clone(&self.facts);
        let stage = &facts.plan.stages[0];
        let shared =
            self.learner.model().model.shared_input(Positions::of_sequence(stage.context_length));
        let text =
            StepText { loader: &self.loader, objective: &self.objective, data_position: 0, stage };
        let input = StepInput { shared, scale: text.scale(), recompute: false };
        let mut first = Accumulation::default();
        let with =
            Computing { workers: &self.workers, model: self.learner.computing(), input: &input };
        first.add_next(with, text, &mut self.clock).expect("the text is readable");
        break_it(&mut self.learner);
        let with =
            Computing { workers: &self.workers, model: self.learner.computing(), input: &input };
        let mismatch = audit(&first, with, text).expect("the CPU computes");
        mismatch.map(|mismatch| mismatch.to_string())
    }

    /// The learner, for tests to inspect and break.
    pub(super) fn learner(&mut self) -> &mut Learner {
        &mut self.learner
    }
}
