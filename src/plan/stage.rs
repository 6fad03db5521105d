//! One stage of a plan, and how often reports, evaluations and checkpoints are due.

use crate::config::{OptimizerState, PatchSize};
use crate::plan::{Cost, Schedule};

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Number of the stage, counted from 0.
    pub idx: usize,
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Updates of the run before this stage.
    pub first_step: u64,
    /// Updates of this stage.
    pub steps: u64,
    /// Tokens of the run before this stage.
    pub first_token: u64,
    /// Position of the stage in the data order, in tokens; differs from `first_token` only if
    /// stages have unequal steps.
    pub first_data_token: u64,
    /// Positions per sequence.
    pub context_length: usize,
    /// Tokens per update.
    pub tokens_per_step: u64,
    /// Sequences per forward pass: the largest divisor of the sequences per update that the
    /// configuration allows.
    pub micro_batch_size: usize,
    /// Forward passes per update.
    pub num_micro_batches: usize,
    /// Learning rate schedule of the stage.
    pub schedule: Schedule,
    /// Optimizer state at the start of the stage.
    pub optimizer_state: OptimizerState,
    /// Floating-point operations of one position, forward and backward.
    pub flops_per_position: f64,
}

/// Intervals in optimizer steps; `None` means never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cadences {
    /// A metrics record.
    pub report: u64,
    /// Evaluation of the token loss (K = 1).
    pub evaluation: Option<u64>,
    /// Activation measurement.
    pub activations: Option<u64>,
    /// Samples.
    pub samples: Option<u64>,
    /// Evaluation tasks.
    pub tasks: Option<u64>,
    /// Periodic checkpoints.
    pub checkpoint: Option<u64>,
}

impl StagePlan {
    /// Tokens of one sequence.
    #[must_use]
    pub fn sequence_tokens(&self) -> usize {
        self.patch_size.get() * self.context_length
    }

    /// Sequences of one update.
    #[must_use]
    pub fn sequences_per_step(&self) -> usize {
        self.micro_batch_size * self.num_micro_batches
    }

    /// Scored targets of one update: the first patch of each sequence has none, each other patch
    /// has K.
    #[must_use]
    pub fn targets_per_step(&self) -> u64 {
        (self.sequences_per_step() * (self.context_length - 1) * self.patch_size.get()) as u64
    }
}

/// The part of a run that a stage takes up, and what its positions cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Updates of the run before this stage.
    pub first_step: u64,
    /// Updates of this stage.
    pub steps: u64,
    /// Tokens per update.
    pub tokens_per_step: u64,
    /// Floating-point operations of one position, forward and backward.
    pub flops_per_position: f64,
}

/// A stage of a plan, or as a run has published it: its numbers may then be the largest there are.
pub trait CostedStage {
    /// What the other numbers follow from.
    fn span(&self) -> Span;

    /// Updates of the run when this stage is complete.
    fn last_step(&self) -> u64 {
        let Span { first_step, steps, .. } = self.span();
        first_step.saturating_add(steps)
    }

    /// Cost of `steps` updates of this stage.
    fn cost(&self, steps: u64) -> Cost {
        let Span { patch_size, tokens_per_step, flops_per_position, .. } = self.span();
        let tokens = steps.saturating_mul(tokens_per_step);
        let positions = tokens / patch_size.get() as u64;
        Cost { tokens, positions, flops: positions as f64 * flops_per_position }
    }
}

/// The stage of the update that follows `completed` updates, or the last stage at the end.
#[must_use]
pub fn stage_idx_after(stages: &[impl CostedStage], completed: u64) -> usize {
    stages
        .iter()
        .position(|stage| completed < stage.last_step())
        .unwrap_or(stages.len().saturating_sub(1))
}

/// Cost of the first `completed` updates.
#[must_use]
pub fn cost_after<S: CostedStage>(stages: &[S], completed: u64) -> Cost {
    let done = |stage: &S| {
        let Span { first_step, steps, .. } = stage.span();
        stage.cost(completed.saturating_sub(first_step).min(steps))
    };
    stages.iter().map(done).sum()
}

impl CostedStage for StagePlan {
    fn span(&self) -> Span {
        let Self { patch_size, first_step, steps, tokens_per_step, flops_per_position, .. } = *self;
        Span { patch_size, first_step, steps, tokens_per_step, flops_per_position }
    }
}
