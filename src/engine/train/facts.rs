//! Constant facts about a run, and the state that its checkpoints must have.

use std::sync::OnceLock;

use crate::config::{OptimizerState, RunConfig, identity_changes, recorded_config};
use crate::data::{BlockOrder, TextRules};
use crate::plan::{CostedStage, RunPlan};
use crate::record::{Checkpoint, DataOrder, Difference, Fork, ModelOutline, TrainerState};

/// What does not change during training.
#[derive(Debug)]
pub(super) struct RunFacts {
    /// Configuration of the run.
    pub(super) config: RunConfig,
    /// Stages, schedule and costs derived from it.
    pub(super) plan: RunPlan,
    /// Order in which the text is read.
    pub(super) order: BlockOrder,
    /// Rules by which files became documents.
    pub(super) text_rules: TextRules,
    /// Fingerprint of the token stream.
    pub(super) data_fingerprint: String,
    /// Hash of the tokenizer.
    pub(super) tokenizer: String,
    /// Ids of the tokenizer's BOS and EOS tokens.
    pub(super) special_tokens: [Option<u32>; 2],
    /// Hash of the initial weights, if they were not random; known once they, or a checkpoint,
    /// were read.
    pub(super) initial_weights: OnceLock<String>,
    /// Origin of a forked run; known once that, or a checkpoint of this run, was read.
    pub(super) fork: OnceLock<Fork>,
}

/// A position in a run, between two updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Completed updates.
    pub(super) step: u64,
    /// The stage, counted from 0; at a stage boundary either of the two.
    pub(super) stage_idx: usize,
}

impl RunFacts {
    /// The state of this run after `step` updates; derived from the plan and the fork.
    pub(super) fn state_after(&self, step: u64) -> TrainerState {
        self.state_of_fork(step, self.fork.get())
    }

    /// The same if the run began at `fork`.
    fn state_of_fork(&self, step: u64, fork: Option<&Fork>) -> TrainerState {
        let plan = &self.plan;
        // At a stage boundary, a checkpoint belongs to the stage of the last update.
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
            optimizer_count: self.optimizer_count_after(idx, step, fork),
            tokens: plan.cost_after(step).tokens,
            data_position,
            cursor: [place.epoch, place.block, place.part_offset_tokens],
            seed: self.config.seed,
            data_fingerprint: self.data_fingerprint.clone(),
            has_measured: true,
            model: Some(ModelOutline::from(&plan.model)),
            tokenizer: Some(self.tokenizer.clone()),
            special_tokens: Some(self.special_tokens),
            data_order: Some(DataOrder {
                block_tokens: self.order.block_tokens(),
                blocks_per_epoch: self.order.blocks_per_epoch(),
                shuffle: self.config.data.shuffle,
                text_rules: self.text_rules.version(),
            }),
            initial_weights: self.initial_weights.get().cloned(),
            arithmetic: TrainerState::ARITHMETIC,
            fork: fork.cloned(),
        }
    }

    /// Updates since the last reset of the optimizer state, after `step` updates in stage `idx`:
    /// those of this stage, of earlier stages that passed their state on, and those before a
    /// fork.
    fn optimizer_count_after(&self, idx: usize, step: u64, fork: Option<&Fork>) -> u64 {
        let stages = &self.plan.stages;
        let kept = stages[..=idx]
            .iter()
            .skip(1)
            .rev()
            .take_while(|stage| stage.optimizer_state == OptimizerState::Keep)
            .count();
        let reset_at = stages[idx - kept].first_step;
        match fork {
            // The first stage resets nothing.
            Some(fork) if reset_at < fork.step || idx == kept => {
                fork.optimizer_count + (step - fork.step)
            }
            _ => step - reset_at,
        }
    }

    /// Values of `checkpoint` that contradict this run; empty if it belongs to this run.
    pub(super) fn differences(&self, checkpoint: &Checkpoint) -> Vec<Difference> {
        let (state, stages) = (&checkpoint.state, self.plan.stages.len());
        let difference = |what: &str, found: usize, expected: usize| {
            vec![Difference {
                what: what.into(),
                found: found.to_string(),
                expected: expected.to_string(),
            }]
        };
        if state.step > self.plan.steps {
            return vec![Difference {
                what: "step".into(),
                found: state.step.to_string(),
                expected: format!("at most {}", self.plan.steps),
            }];
        }
        let timed = checkpoint.manifest.active_seconds.len();
        if timed != stages {
            return difference("number of stages in active_seconds", timed, stages);
        }
        if let Some(change) =
            identity_changes(&checkpoint.manifest.config, &recorded_config(&self.config))
                .into_iter()
                .next()
            && !checkpoint.manifest.config.is_empty()
        {
            return vec![Difference { what: change.key, found: change.old, expected: change.new }];
        }
        let mut expected = self
            .state_of_fork(state.step, state.fork.as_ref().filter(|fork| fork.step <= state.step));
        let ends_stage = self.plan.stages.iter().any(|stage| stage.last_step() == state.step);
        if ends_stage && state.optimizer_count == 0 {
            // Saved after the next stage had reset the optimizer state and before its first update.
            expected.optimizer_count = 0;
        }
        state.differences(&expected)
    }
}
