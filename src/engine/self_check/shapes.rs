//! The shapes on which a device is checked: those of the run, reduced where full tensors would take
//! a CPU minutes.

use crate::config::{PatchSize, Precision};
use crate::plan::{HEAD_ROWS, ModelShape, RunPlan};

/// Maximum number of floating-point operations of the forward and backward pass of one product: a
/// quarter of a second on two cores.
const PRODUCT_FLOPS: usize = 50_000_000_000;
/// The same for the head, whose whole chunk of rows should be checked.
const HEAD_FLOPS: usize = 300_000_000_000;
/// Maximum number of values of a tensor that no product reads.
const MOST_VALUES: usize = 1 << 22;
/// Maximum number of attention heads that share a key, and of such groups.
const MOST_HEADS: usize = 2;
/// Layers are alike; the weights of one are enough.
const CHECKED_LAYERS: usize = 1;
/// Rows of the table of the updated network; the update of a value does not depend on their number.
const UPDATED_VOCABULARY: usize = 64;

/// Sizes of a micro-batch and of the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The network, with one layer.
    pub model: ModelShape,
    /// Tokens of a patch (K).
    pub patch_size: PatchSize,
    /// Positions of a sequence (T).
    pub positions: usize,
    /// Sequences of a micro-batch (B).
    pub sequences: usize,
    /// Number format of the computation.
    pub precision: Precision,
}

/// The distinct shapes of the stages of a plan.
pub fn shapes(plan: &RunPlan, precision: Precision) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    for stage in &plan.stages {
        let model = ModelShape { num_hidden_layers: CHECKED_LAYERS, ..plan.model.clone() };
        let shape = Shape {
            model,
            patch_size: stage.patch_size,
            positions: stage.context_length,
            sequences: stage.micro_batch_size,
            precision,
        };
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes
}

impl Shape {
    /// Rows of a micro-batch, `N = B * T`.
    pub fn rows(&self) -> usize {
        self.sequences * self.positions
    }

    /// Rows of a product with a weight of shape `[out, in]`.
    pub fn product_rows(&self, outputs: usize, inputs: usize) -> usize {
        rows_within(self.rows(), PRODUCT_FLOPS, 6 * outputs * inputs)
    }

    /// Rows of a chunk of the head.
    pub fn head_rows(&self) -> usize {
        rows_within(
            self.rows().min(HEAD_ROWS),
            HEAD_FLOPS,
            6 * self.model.vocab_size * self.model.hidden_size,
        )
    }

    /// Rows of `width` values, for operations that treat rows independently.
    pub fn plain_rows(&self, width: usize) -> usize {
        rows_within(self.rows(), MOST_VALUES, width)
    }

    /// Sequences whose heads are rotated.
    pub fn plain_sequences(&self) -> usize {
        rows_within(self.sequences, MOST_VALUES, self.positions * self.model.hidden_size)
    }

    /// Query heads and key heads of attention, in the same ratio as in the network.
    pub fn heads(&self) -> (usize, usize) {
        let (heads, groups) = (self.model.num_attention_heads, self.model.num_key_value_heads);
        let checked_groups = groups.min(MOST_HEADS);
        (checked_groups * (heads / groups).min(MOST_HEADS), checked_groups)
    }

    /// A network with weights of the run's sizes, small enough to be updated twice.
    pub fn updated_model(&self) -> ModelShape {
        ModelShape {
            vocab_size: UPDATED_VOCABULARY.min(self.model.vocab_size),
            ..self.model.clone()
        }
    }
}

/// `rows`, or as many as stay within `budget`, a multiple of 16 unless there are fewer.
fn rows_within(rows: usize, budget: usize, per_row: usize) -> usize {
    let most = (budget / per_row.max(1)).max(1);
    if rows <= most { rows } else { most.next_multiple_of(16).min(rows) }
}
