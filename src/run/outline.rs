//! The plan as a run announces it in its header, on disk and on the wire.
//!
//! A subset of [`RunPlan`] with types of its own, so that the planner can change without old runs and live clients noticing.
//! Fields are only ever added, each with a default; nothing here is renamed or removed.

use serde::{Deserialize, Serialize};

use crate::config::{OptimizerState, PatchSize};
use crate::plan::{Cost, RunPlan, StagePlan};

/// The plan of a run, as its header has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanOutline {
    /// Sizes of the network.
    pub model: ModelOutline,
    /// Number of weights.
    pub num_parameters: u64,
    /// The stages in order.
    pub stages: Vec<StageOutline>,
    /// Updates of the run.
    pub steps: u64,
    /// What the run costs.
    pub cost: CostOutline,
    /// Floating-point operations for the same tokens at token level (K = 1).
    pub token_level_flops: f64,
    /// True entropy rate of the text in nats per token, if it is known.
    pub entropy_rate: Option<f64>,
    /// Intervals of evaluations.
    pub cadences: CadenceOutline,
    /// Memory and disk that are needed.
    pub memory: MemoryOutline,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// The most important sizes of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelOutline {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageOutline {
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Updates of the run before this stage.
    pub first_step: u64,
    /// Updates of this stage.
    pub steps: u64,
    /// Tokens of the run before this stage.
    pub first_token: u64,
    /// Tokens per update.
    pub tokens_per_step: u64,
    /// Positions per sequence.
    #[serde(default)]
    pub context_length: usize,
    /// Sequences per forward pass.
    #[serde(default)]
    pub micro_batch_size: usize,
    /// Forward passes per update.
    #[serde(default)]
    pub num_micro_batches: usize,
    /// Floating-point operations of one position, forward and backward.
    #[serde(default)]
    pub flops_per_position: f64,
    /// Learning rate over the stage.
    #[serde(default)]
    pub schedule: ScheduleOutline,
    /// What happens to the moments on entering the stage.
    #[serde(default)]
    pub optimizer_state: MomentsOutline,
}

/// The learning rate over a stage.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleOutline {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
}

/// What happens to the moments and to Adam's count on entering a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentsOutline {
    /// They start at zero.
    Reset,
    /// They are kept.
    Keep,
    /// A value of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What a piece of training costs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CostOutline {
    /// Tokens read.
    pub tokens: u64,
    /// Positions computed.
    pub positions: u64,
    /// Floating-point operations, forward and backward.
    pub flops: f64,
}

/// Intervals in optimizer steps; `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CadenceOutline {
    /// Token-level evaluation.
    pub evaluation: Option<u64>,
}

/// Bytes that a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryOutline {
    /// Weights, gradients and both moments.
    pub state: u64,
    /// Activations.
    pub activations: u64,
    /// One checkpoint on disk.
    pub checkpoint: u64,
}

impl PlanOutline {
    /// The stage of the update that follows `completed` updates, or the last stage at the end.
    #[must_use]
    pub fn stage_idx_after(&self, completed: u64) -> usize {
        self.stages.iter().position(|stage| completed < stage.last_step()).unwrap_or(self.stages.len().saturating_sub(1))
    }

    /// What the first `completed` updates cost.
    #[must_use]
    pub fn cost_after(&self, completed: u64) -> CostOutline {
        let done = |stage: &StageOutline| stage.cost(completed.saturating_sub(stage.first_step).min(stage.steps));
        self.stages.iter().fold(CostOutline::default(), |sum, stage| sum.plus(done(stage)))
    }

    /// Cost of the run against token-level training on the same tokens.
    #[must_use]
    pub fn relative_cost(&self) -> f64 {
        self.cost.flops / self.token_level_flops
    }
}

impl StageOutline {
    /// Updates of the run when this stage is complete.
    #[must_use]
    pub fn last_step(&self) -> u64 {
        self.first_step.saturating_add(self.steps)
    }

    /// What `steps` updates of this stage cost.
    #[must_use]
    pub fn cost(&self, steps: u64) -> CostOutline {
        let tokens = steps.saturating_mul(self.tokens_per_step);
        let positions = tokens / self.patch_size.get() as u64;
        CostOutline { tokens, positions, flops: positions as f64 * self.flops_per_position }
    }
}

impl CostOutline {
    fn plus(self, other: Self) -> Self {
        Self { tokens: self.tokens.saturating_add(other.tokens), positions: self.positions.saturating_add(other.positions), flops: self.flops + other.flops }
    }
}

impl From<&RunPlan> for PlanOutline {
    fn from(plan: &RunPlan) -> Self {
        let model = &plan.model;
        Self {
            model: ModelOutline { vocab_size: model.vocab_size, hidden_size: model.hidden_size, num_hidden_layers: model.num_hidden_layers },
            num_parameters: plan.num_parameters,
            stages: plan.stages.iter().map(StageOutline::from).collect(),
            steps: plan.steps,
            cost: plan.cost.into(),
            token_level_flops: plan.token_level_flops,
            entropy_rate: plan.entropy_rate,
            cadences: CadenceOutline { evaluation: plan.cadences.evaluation },
            memory: MemoryOutline { state: plan.memory.state, activations: plan.memory.activations, checkpoint: plan.memory.checkpoint },
            warnings: plan.warnings.clone(),
        }
    }
}

impl From<&StagePlan> for StageOutline {
    fn from(stage: &StagePlan) -> Self {
        Self {
            patch_size: stage.patch_size,
            first_step: stage.first_step,
            steps: stage.steps,
            first_token: stage.first_token,
            tokens_per_step: stage.tokens_per_step,
            context_length: stage.context_length,
            micro_batch_size: stage.micro_batch_size,
            num_micro_batches: stage.num_micro_batches,
            flops_per_position: stage.flops_per_position,
            schedule: ScheduleOutline { peak: stage.schedule.peak },
            optimizer_state: match stage.optimizer_state {
                OptimizerState::Reset => MomentsOutline::Reset,
                OptimizerState::Keep => MomentsOutline::Keep,
            },
        }
    }
}

impl From<Cost> for CostOutline {
    fn from(cost: Cost) -> Self {
        Self { tokens: cost.tokens, positions: cost.positions, flops: cost.flops }
    }
}
