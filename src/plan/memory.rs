//! How much memory a run needs, computed from its sizes before anything is allocated.
//!
//! [`Memory`] is what the plan shows. [`MemoryNeed`] is what training on the CPU needs: a lower bound, below
//! which a run cannot work, and an estimate. All sums saturate, so that absurd sizes cannot overflow.

use std::collections::BTreeSet;

use crate::config::RunConfig;
use crate::plan::{ModelShape, RunPlan, StagePlan};

/// Micro-batches that the CPU computes side by side, at most; each holds activations and gradients of its own.
pub const MAX_PARALLEL_MICRO_BATCHES: usize = 4;

/// Bytes of a number (f32).
const NUMBER: u64 = 4;
/// Rows of logits that the head holds at once: `CHUNK_ROWS` of `engine/loss.rs`.
const HEAD_ROWS: u64 = 4096;
/// The estimate of activations counts every intermediate result; one part in this many is needed under any order of computation.
const CERTAIN_PART: u64 = 4;

/// Bytes that a run needs at its peak; activations are an estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Weights, gradients and both moments in f32.
    pub state: u64,
    /// Kept for the backward pass of one micro-batch.
    pub activations: u64,
    /// One checkpoint on disk.
    pub checkpoint: u64,
}

/// Bytes that training on the CPU needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// With less than this, a run cannot work.
    pub least: u64,
    /// Expected at the peak; an upper estimate.
    pub expected: u64,
}

impl ModelShape {
    /// Bytes for micro-batches of `sequences` sequences of `context_length` positions.
    ///
    /// Activations: per layer and position about 12 rows of `hidden_size`, 4 of `intermediate_size` and 4 score rows per
    /// head, and 4 rows of logits for as many positions as the head takes at once, all f32 (an upper estimate; nothing is recomputed).
    #[must_use]
    pub fn memory(&self, sequences: usize, context_length: usize) -> Memory {
        let parameters = self.num_parameters();
        Memory {
            state: parameters.saturating_mul(4 * NUMBER),
            activations: self.activations(sequences, context_length),
            checkpoint: parameters.saturating_mul(3 * NUMBER),
        }
    }

    fn activations(&self, sequences: usize, context_length: usize) -> u64 {
        let rows = (sequences as u64).saturating_mul(context_length as u64);
        let layers = self.num_hidden_layers as u64;
        rows.saturating_mul(layers).saturating_mul(self.layer_row(context_length)).saturating_add(self.logits(rows)).saturating_mul(NUMBER)
    }

    /// The same without a backward pass, for which nothing is kept: one layer at a time.
    fn activations_of_evaluation(&self, sequences: usize, context_length: usize) -> u64 {
        let rows = (sequences as u64).saturating_mul(context_length as u64);
        rows.saturating_mul(self.layer_row(context_length)).saturating_add(self.logits(rows)).saturating_mul(NUMBER)
    }

    /// Numbers of one position in one layer.
    fn layer_row(&self, context_length: usize) -> u64 {
        let scores = (self.num_attention_heads as u64).saturating_mul(context_length as u64);
        [(12, self.hidden_size as u64), (4, self.intermediate_size as u64), (4, scores)]
            .into_iter()
            .fold(0_u64, |sum, (times, width)| sum.saturating_add(width.saturating_mul(times)))
    }

    fn logits(&self, rows: u64) -> u64 {
        rows.min(HEAD_ROWS).saturating_mul(self.vocab_size as u64).saturating_mul(4)
    }
}

impl MemoryNeed {
    /// Computes what `plan` needs when the CPU computes with `threads` threads.
    #[must_use]
    pub fn new(plan: &RunPlan, config: &RunConfig, threads: usize) -> Self {
        Self::with_micro_batches(plan, config, threads, usize::MAX)
    }

    /// The largest micro-batch below the configured ones whose expected need fits into `available` bytes; `None` if not even
    /// a single sequence does.
    #[must_use]
    pub fn largest_micro_batch(plan: &RunPlan, config: &RunConfig, threads: usize, available: u64) -> Option<usize> {
        let fits = |limit: usize| Self::with_micro_batches(plan, config, threads, limit).expected <= available;
        let configured = plan.stages.iter().map(|stage| stage.micro_batch_size).chain([config.training.micro_batch_size]).max().unwrap_or(1);
        // The need grows with the limit, so the largest that fits lies between one that does and one that does not.
        let (mut fitting, mut beyond) = (0, configured.max(2));
        while beyond - fitting > 1 {
            let middle = fitting + (beyond - fitting) / 2;
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        (fitting > 0).then_some(fitting)
    }

    /// The need with micro-batches of at most `limit` sequences.
    #[must_use]
    pub fn with_micro_batches(plan: &RunPlan, config: &RunConfig, threads: usize, limit: usize) -> Self {
        let parallel = threads.clamp(1, MAX_PARALLEL_MICRO_BATCHES);
        // Thousands of stages may be alike.
        let shapes: BTreeSet<(usize, usize, usize)> = plan.stages.iter().map(|stage| shape_within(stage, limit)).collect();
        let of_stages = shapes.into_iter().map(|shape| training(&plan.model, shape, parallel));
        let widest = of_stages.reduce(Self::wider).unwrap_or(Self { least: 0, expected: 0 });
        widest.wider(evaluation(&plan.model, config, parallel, limit))
    }

    fn wider(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), expected: self.expected.max(other.expected) }
    }
}

/// Sequences of a micro-batch, positions of a sequence, and micro-batches of a step, with at most `limit` sequences at a time.
fn shape_within(stage: &StagePlan, limit: usize) -> (usize, usize, usize) {
    let micro_batch_size = stage.micro_batch_size.min(limit).max(1);
    (micro_batch_size, stage.context_length, stage.sequences_per_step().div_ceil(micro_batch_size))
}

fn training(model: &ModelShape, (sequences, context_length, num_micro_batches): (usize, usize, usize), parallel: usize) -> MemoryNeed {
    let parameters = model.num_parameters().saturating_mul(NUMBER);
    let activations = model.activations(sequences, context_length);
    let side_by_side = parallel.min(num_micro_batches.max(1));
    // Besides the gradients of each micro-batch there is their sum, unless a step has one micro-batch only.
    let gradients = side_by_side as u64 + u64::from(num_micro_batches > 1);
    // Weights, gradients and two moments.
    let least = parameters.saturating_mul(4).saturating_add(activations / CERTAIN_PART);
    let expected = parameters.saturating_mul(3 + gradients).saturating_add(activations.saturating_mul(side_by_side as u64));
    MemoryNeed { least, expected }
}

/// Evaluations hold weights and moments, and no gradients.
fn evaluation(model: &ModelShape, config: &RunConfig, parallel: usize, limit: usize) -> MemoryNeed {
    let context_length = config.training.context_length;
    let available = usize::try_from(config.evaluation.max_tokens.0).unwrap_or(usize::MAX) / context_length.max(1);
    let sequences = config.training.micro_batch_size.min(limit).min(available).max(1);
    let state = model.num_parameters().saturating_mul(3 * NUMBER);
    let activations = model.activations_of_evaluation(sequences, context_length);
    let side_by_side = parallel.min(available.div_ceil(sequences).max(1)) as u64;
    MemoryNeed { least: state, expected: state.saturating_add(activations.saturating_mul(side_by_side)) }
}
