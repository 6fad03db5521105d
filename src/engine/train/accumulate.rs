//! Loss and gradients of one update, summed over its micro-batches.
//!
//! Knows the text and the network; not what happens between two groups of micro-batches. Start at [`Accumulation::add_group`].

use std::time::Instant;

use burn::tensor::Tensor;

use crate::data::Loader;
use crate::engine::error::EngineError;
use crate::engine::gradients::{NamedGradients, micro_steps};
use crate::engine::model::{LlamaForCausalLM, Positions};
use crate::engine::patch::Batch;
use crate::engine::train::clock::Clock;
use crate::engine::workers::Workers;
use crate::plan::StagePlan;

/// What one update reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepInput<'a> {
    /// Training text in its order.
    pub(super) loader: &'a Loader,
    /// Where the update begins in that order, in tokens.
    pub(super) data_position: u64,
    /// How the text is cut.
    pub(super) stage: &'a StagePlan,
    /// What the layers share for sequences of the stage's length.
    pub(super) positions: &'a Positions,
}

/// The sum over those micro-batches of an update that were computed so far.
#[derive(Debug, Default)]
pub(super) struct Accumulation {
    num_micro_batches: usize,
    loss_sum: Option<Tensor<1>>,
    gradients: NamedGradients,
}

/// Loss and gradients of a whole update, still on the device.
#[derive(Debug)]
pub(super) struct StepGradients {
    /// Mean over scored targets: `[1]`.
    pub(super) loss: Tensor<1>,
    /// Gradients of that mean.
    pub(super) gradients: NamedGradients,
}

impl Accumulation {
    /// Whether all micro-batches of `stage` are in the sum.
    pub(super) fn is_complete(&self, stage: &StagePlan) -> bool {
        self.num_micro_batches >= stage.num_micro_batches
    }

    /// Computes the next micro-batches, as many as go together, and adds them; returns false if the run is to end.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn add_group(&mut self, workers: &Workers, model: &LlamaForCausalLM, input: StepInput<'_>, clock: &mut Clock) -> Result<bool, EngineError> {
        clock.run();
        let first = self.num_micro_batches;
        let end = input.stage.num_micro_batches.min(first + workers.device.micro_batches_together);
        let group: Vec<Batch> = (first..end).map(|idx| input.micro_batch(idx, workers, clock)).collect();
        let Some(micros) = micro_steps(workers, model, &group, input.positions, weight(input.stage))? else {
            clock.rest();
            return Ok(false);
        };
        for micro in micros {
            self.gradients.accumulate(micro.gradients);
            self.loss_sum = Some(match self.loss_sum.take() {
                Some(sum) => sum + micro.loss_sum,
                None => micro.loss_sum,
            });
        }
        self.num_micro_batches = end;
        clock.rest();
        Ok(true)
    }

    /// The complete sum as the update needs it.
    pub(super) fn finish(self, stage: &StagePlan) -> StepGradients {
        let sum = self.loss_sum.expect("an update has at least one micro-batch");
        StepGradients { loss: sum * weight(stage), gradients: self.gradients }
    }
}

impl StepInput<'_> {
    /// The sequences of micro-batch `idx`, uploaded.
    fn micro_batch(&self, idx: usize, workers: &Workers, clock: &mut Clock) -> Batch {
        let waiting = Instant::now();
        let sequence = self.stage.sequence_tokens();
        let mut tokens = vec![0; self.stage.micro_batch_size * sequence];
        let start = self.data_position + (idx * tokens.len()) as u64;
        for (idx, out) in tokens.chunks_mut(sequence).enumerate() {
            self.loader.read(start + (idx * sequence) as u64, out);
        }
        clock.count_data_wait(waiting.elapsed());
        Batch::new(&tokens, self.stage.micro_batch_size, self.stage.patch_size, &workers.device.device)
    }
}

/// What each scored position counts in the loss of an update.
fn weight(stage: &StagePlan) -> f64 {
    stage.patch_size.get() as f64 / stage.targets_per_step() as f64
}
