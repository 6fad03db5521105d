//! The memory that a run needs, computed from its sizes before anything is allocated.
//!
//! Adds up what a step holds: what each layer keeps from its forward to its backward pass, the
//! working memory of one layer and of the head, and weights, gradients and optimizer state.
//! [`Memory`] is what the plan shows; [`MemoryNeed`] is the peak of training on the CPU. Sums are
//! floating-point numbers, so that absurd sizes cannot overflow.
//!
//! Letters: `D` hidden, `F` intermediate, `V` vocabulary; all numbers have four bytes (f32).

use std::collections::BTreeSet;

use crate::config::RunConfig;
use crate::plan::{ModelShape, RunPlan, StagePlan};

/// Rows of logits that the head holds at once.
pub const HEAD_ROWS: usize = 1024;
/// Queries of a sequence whose attention weights are held at once.
pub const ATTENTION_QUERIES: usize = 64;

/// Bytes of the program itself, its threads and the text that it reads.
const PROGRAM: f64 = 48e6;
/// Fragmentation: the allocator cannot fill every gap that a freed block leaves.
const GAPS: f64 = 1.06;
/// A run is refused only if less than this share of the expected need is available: the estimate
/// may be off by 15 %.
const CERTAIN_PART: f64 = 0.8;

/// Bytes that a run needs at its peak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Weights, gradients and optimizer state in f32.
    pub state: u64,
    /// Peak of one micro-batch.
    pub activations: u64,
    /// One checkpoint on disk.
    pub checkpoint: u64,
}

/// Bytes that training on the CPU needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// With less than this, a run cannot work.
    pub least: u64,
    /// Expected at the peak.
    pub expected: u64,
}

/// What one micro-batch holds, in numbers.
#[derive(Debug, Clone, Copy)]
struct MicroBatch {
    /// Positions.
    rows: f64,
    /// What all layers keep for the backward pass.
    kept: f64,
    /// Working memory of one layer in its backward pass, besides what it kept or recomputed.
    layer: f64,
    /// Working memory of the head, without the gradient of its weight.
    head: f64,
}

impl ModelShape {
    /// Bytes for micro-batches of `sequences` sequences of `context_length` positions. With
    /// `recompute`, layers keep their inputs only.
    #[must_use]
    pub fn memory(&self, sequences: usize, context_length: usize, recompute: bool) -> Memory {
        let parameters = self.num_parameters() as f64;
        Memory {
            state: bytes(4.0 * parameters),
            activations: bytes(self.micro_batch(sequences, context_length, recompute).peak()),
            checkpoint: bytes(3.0 * parameters),
        }
    }

    fn micro_batch(&self, sequences: usize, context_length: usize, recompute: bool) -> MicroBatch {
        let rows = sequences as f64 * context_length as f64;
        let [d, f, v, layers] =
            [self.hidden_size, self.intermediate_size, self.vocab_size, self.num_hidden_layers]
                .map(|size| size as f64);
        let key_value =
            d * self.num_key_value_heads as f64 / self.num_attention_heads.max(1) as f64;
        // Each norm: its input and its output. Attention: queries and output, keys and values.
        // Feed-forward block: gate, up, and the product of their activations.
        let of_layer = rows * (6.0 * d + 2.0 * key_value + 3.0 * f);
        // Gradients on their way through the feed-forward block, or through attention.
        let work = rows * f64::max(3.0 * d + f, 6.0 * d + 2.0 * key_value);
        let head_rows = rows.min(HEAD_ROWS as f64);
        MicroBatch {
            rows,
            kept: layers * if recompute { rows * d } else { of_layer },
            layer: if recompute { of_layer + work } else { work },
            // Logits, whose gradient takes their place, and the gradient of the rows.
            head: head_rows * v + 2.0 * rows * d,
        }
    }
}

impl MicroBatch {
    fn peak(self) -> f64 {
        self.kept + self.layer.max(self.head)
    }
}

impl MemoryNeed {
    /// The memory that `plan` needs on the CPU.
    #[must_use]
    pub fn new(plan: &RunPlan, config: &RunConfig) -> Self {
        Self::with_micro_batches(plan, config, usize::MAX)
    }

    /// The largest micro-batch below the configured ones whose expected need fits into `available`
    /// bytes; `None` if not even a single sequence does.
    #[must_use]
    pub fn largest_micro_batch(
        plan: &RunPlan,
        config: &RunConfig,
        available: u64,
    ) -> Option<usize> {
        let fits =
            |limit: usize| Self::with_micro_batches(plan, config, limit).expected <= available;
        let configured = plan
            .stages
            .iter()
            .map(|stage| stage.micro_batch_size)
            .chain([config.training.micro_batch_size])
            .max()
            .unwrap_or(1);
        // The need grows with the limit, so the largest that fits lies between one that does and
        // one that does not.
        let (mut fitting, mut beyond) = (0, configured.max(2));
        while beyond - fitting > 1 {
            let middle = fitting + (beyond - fitting) / 2;
            if fits(middle) { fitting = middle } else { beyond = middle }
        }
        (fitting > 0).then_some(fitting)
    }

    /// The need with micro-batches of at most `limit` sequences.
    #[must_use]
    pub fn with_micro_batches(plan: &RunPlan, config: &RunConfig, limit: usize) -> Self {
        // Thousands of stages may be alike.
        let shapes: BTreeSet<(usize, usize, usize)> =
            plan.stages.iter().map(|stage| shape_within(stage, limit)).collect();
        let of_stages =
            shapes.into_iter().map(|shape| training(plan, config.training.recompute, shape));
        let widest = of_stages.reduce(Self::wider).unwrap_or(Self { least: 0, expected: 0 });
        widest.wider(evaluation(plan, config, limit))
    }

    fn wider(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), expected: self.expected.max(other.expected) }
    }
}

/// Sequences of a micro-batch, positions of a sequence, and micro-batches of a step, with at most
/// `limit` sequences at a time.
fn shape_within(stage: &StagePlan, limit: usize) -> (usize, usize, usize) {
    let micro_batch_size = stage.micro_batch_size.min(limit).max(1);
    (micro_batch_size, stage.context_length, stage.sequences_per_step().div_ceil(micro_batch_size))
}

fn training(
    plan: &RunPlan,
    recompute: bool,
    (sequences, context_length, num_micro_batches): (usize, usize, usize),
) -> MemoryNeed {
    let parameters = plan.model.num_parameters() as f64;
    let table = plan.model.vocab_size as f64 * plan.model.hidden_size as f64;
    let micro = plan.model.micro_batch(sequences, context_length, recompute);
    let step = if num_micro_batches > 1 {
        // The gradients of the micro-batches before are there.
        parameters + micro.peak()
    } else {
        // Gradients appear as kept activations are freed, those of the head first.
        f64::max(
            micro.kept + table + micro.head.max(micro.layer),
            micro.kept / plan.model.num_hidden_layers as f64 + micro.layer + parameters,
        )
    };
    // Weights and two moments are always there; the update changes them in their place.
    need(3.0 * parameters + step)
}

/// Evaluations hold weights and moments, no gradients, and one layer at a time.
fn evaluation(plan: &RunPlan, config: &RunConfig, limit: usize) -> MemoryNeed {
    let model = &plan.model;
    let context_length = config.training.context_length;
    let available =
        usize::try_from(plan.evaluation_tokens).unwrap_or(usize::MAX) / context_length.max(1);
    let sequences = config.training.micro_batch_size.min(limit).min(available).max(1);
    let micro = model.micro_batch(sequences, context_length, true);
    need(
        3.0 * model.num_parameters() as f64
            + micro.rows * model.hidden_size as f64
            + micro.layer.max(micro.head),
    )
}

/// The need for a peak of this many numbers, plus that of the program.
fn need(numbers: f64) -> MemoryNeed {
    let expected = PROGRAM + GAPS * numbers * 4.0;
    MemoryNeed { least: (CERTAIN_PART * expected) as u64, expected: expected as u64 }
}

/// Bytes of this many f32 numbers.
fn bytes(numbers: f64) -> u64 {
    (numbers * 4.0) as u64
}
