//! Finds what training starts from: new weights, or the newest checkpoint that belongs to this run.

use std::cell::RefCell;

use crate::config::{OptimizerState, RunConfig};
use crate::data::BlockOrder;
use crate::engine::checkpoint::{load_model, load_optimizer};
use crate::engine::device::ComputeDevice;
use crate::engine::error::EngineError;
use crate::engine::model::{LlamaForCausalLM, random_weights};
use crate::engine::optimizer::AdamW;
use crate::engine::trainer::Reached;
use crate::plan::RunPlan;
use crate::run::{Checkpoint, Checkpoints, DataOrder, Difference, ModelOutline, Rejected, StopFlag, TrainerState};

/// What training starts from.
pub(super) struct Start {
    pub(super) model: LlamaForCausalLM,
    pub(super) optimizer: AdamW,
    pub(super) resumed_from: Option<u64>,
    pub(super) reached: Reached,
}

/// The facts about a run that its checkpoints must agree with.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunFacts<'a> {
    /// Configuration of the run.
    pub(super) config: &'a RunConfig,
    /// Plan that follows from it.
    pub(super) plan: &'a RunPlan,
    /// Order in which the text is read.
    pub(super) order: &'a BlockOrder,
    /// Fingerprint of the token stream.
    pub(super) data_fingerprint: &'a str,
    /// Hash of the tokenizer.
    pub(super) tokenizer: &'a str,
}

impl RunFacts<'_> {
    /// The state of this run after `step` updates; all of it follows from the plan.
    pub(super) fn state_after(&self, step: u64) -> TrainerState {
        let plan = self.plan;
        // At a switch, what is saved belongs to the stage of the last update.
        let idx = plan.stage_idx_after(step.saturating_sub(1));
        let stage = &plan.stages[idx];
        let stage_step = step - stage.first_step;
        let data_position = stage.first_data_token + stage_step * stage.tokens_per_step;
        let place = self.order.place(data_position);
        TrainerState {
            format_version: TrainerState::FORMAT_VERSION,
            step,
            stage: idx,
            stage_step,
            patch_size: stage.patch_size,
            optimizer_count: self.optimizer_count_after(idx, stage_step),
            tokens: plan.cost_after(step).tokens,
            data_position,
            cursor: [place.epoch, place.block, place.part_offset_tokens],
            seed: self.config.seed,
            data_fingerprint: self.data_fingerprint.to_owned(),
            has_measured: true,
            model: Some(ModelOutline::from(&plan.model)),
            tokenizer: Some(self.tokenizer.to_owned()),
            data_order: Some(DataOrder {
                block_tokens: self.order.block_tokens(),
                blocks_per_epoch: self.order.blocks_per_epoch(),
                shuffle: self.config.data.shuffle,
            }),
        }
    }

    /// Updates since the moments were zero: those of this stage, and of the stages before it that handed their moments on.
    fn optimizer_count_after(&self, idx: usize, stage_step: u64) -> u64 {
        let stages = &self.plan.stages;
        let kept = stages[..=idx].iter().skip(1).rev().take_while(|stage| stage.optimizer_state == OptimizerState::Keep).count();
        stage_step + stages[idx - kept..idx].iter().map(|stage| stage.steps).sum::<u64>()
    }

    /// Values of `checkpoint` that contradict this run; empty if it belongs to it.
    fn differences(&self, checkpoint: &Checkpoint) -> Vec<Difference> {
        let (state, stages) = (&checkpoint.state, self.plan.stages.len());
        let difference =
            |what: &str, found: usize, expected: usize| vec![Difference { what: what.into(), found: found.to_string(), expected: expected.to_string() }];
        if state.step > self.plan.steps {
            return vec![Difference { what: "step".into(), found: state.step.to_string(), expected: format!("at most {}", self.plan.steps) }];
        }
        let timed = checkpoint.manifest.active_seconds.len();
        if timed != stages {
            return difference("number of stages in active_seconds", timed, stages);
        }
        let mut expected = self.state_after(state.step);
        let ends_stage = self.plan.stages.iter().any(|stage| stage.last_step() == state.step);
        if ends_stage && state.optimizer_count == 0 {
            // Saved after the next stage had reset the moments and before its first update.
            expected.optimizer_count = 0;
        }
        state.differences(&expected)
    }
}

impl Start {
    /// Finds what to start from; also the checkpoints that are not used, and why.
    ///
    /// # Errors
    /// When there are checkpoints but none is valid and of this run, or one cannot be loaded.
    pub(super) fn find(facts: RunFacts<'_>, checkpoints: &Checkpoints, device: &ComputeDevice, stop: &StopFlag) -> Result<(Self, Vec<Rejected>), EngineError> {
        let first = RefCell::new(None);
        let accepts = |checkpoint: &Checkpoint| {
            let Some(difference) = facts.differences(checkpoint).into_iter().next() else { return Ok(()) };
            let reason = format!("it belongs to another run: its {} is {}, but this run's is {}", difference.what, difference.found, difference.expected);
            first.borrow_mut().get_or_insert((checkpoint.state.step, difference));
            Err(reason)
        };
        let (newest, rejected) = checkpoints.newest(&accepts, &|| stop.is_raised())?;
        match (newest, first.into_inner()) {
            (Some(checkpoint), _) => Ok((Self::from_checkpoint(&checkpoint, facts, device)?, rejected)),
            (None, None) if rejected.is_empty() => Ok((Self::anew(facts, device), rejected)),
            // To begin again would throw away what was trained, for a reason that only the user knows.
            (None, None) => Err(EngineError::NoUsableCheckpoint { rejected }),
            (None, Some((at_step, difference))) if matches!(difference.what.as_str(), "data_fingerprint" | "tokenizer") => {
                Err(EngineError::OtherData { step: at_step })
            }
            (None, Some((at_step, difference))) => Err(EngineError::OtherRun { step: at_step, difference }),
        }
    }

    fn anew(facts: RunFacts<'_>, device: &ComputeDevice) -> Self {
        let shape = &facts.plan.model;
        let Ok(model) = LlamaForCausalLM::new(shape, &mut random_weights(facts.config.seed, shape), &device.device);
        let reached = Reached { step: 0, active_seconds: vec![0.0; facts.plan.stages.len()], has_measured: false };
        Self { model, optimizer: AdamW::new(facts.config.optimizer.clone()), resumed_from: None, reached }
    }

    fn from_checkpoint(checkpoint: &Checkpoint, facts: RunFacts<'_>, device: &ComputeDevice) -> Result<Self, EngineError> {
        let model = load_model(checkpoint, &facts.plan.model, &device.device)?;
        let optimizer = load_optimizer(checkpoint, facts.config.optimizer.clone(), &model, &device.device)?;
        let state = &checkpoint.state;
        let reached = Reached { step: state.step, has_measured: state.has_measured, active_seconds: checkpoint.manifest.active_seconds.clone() };
        Ok(Self { model, optimizer, resumed_from: Some(state.step), reached })
    }
}
