//! Loss and gradients of one update, summed over its micro-batches.
//!
//! Reads the text and runs the network; independent of what happens between two groups of
//! micro-batches. Start at [`Accumulation::add_next`].

use std::time::Instant;

use burn::tensor::Tensor;

use crate::data::{DataError, Loader};
use crate::engine::batch::Batch;
use crate::engine::gradients::Gradients;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::step::{StepInput, StepWatch, micro_step};
use crate::engine::train::clock::Clock;
use crate::engine::workers::Workers;
use crate::plan::StagePlan;

/// Device and network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Computing<'a> {
    /// The device and its threads.
    pub(super) workers: &'a Workers,
    /// The network.
    pub(super) model: &'a LlamaForCausalLM,
    /// Settings shared by all micro-batches of the update.
    pub(super) input: &'a StepInput,
}

/// Data of one update.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepText<'a> {
    /// Training text in its order.
    pub(super) loader: &'a Loader,
    /// Position of the update in that order, in tokens.
    pub(super) data_position: u64,
    /// How the text is split.
    pub(super) stage: &'a StagePlan,
}

/// The sum over the micro-batches of an update computed so far.
#[derive(Debug, Default)]
pub(super) struct Accumulation {
    /// Micro-batches in the sum.
    pub(super) num_micro_batches: usize,
    /// The loss, summed over scored targets, `[1]`, and the gradients of the loss times the scale
    /// of the step; `None` before the first micro-batch.
    sum: Option<(Tensor<1>, Gradients)>,
}

/// Loss and gradients of a whole update, still on the device.
#[derive(Debug)]
pub(super) struct StepGradients {
    /// Mean over scored targets: `[1]`.
    pub(super) loss: Tensor<1>,
    /// Gradients of that mean.
    pub(super) gradients: Gradients,
}

impl Accumulation {
    /// Whether all micro-batches of `stage` are in the sum.
    pub(super) fn is_complete(&self, stage: &StagePlan) -> bool {
        self.num_micro_batches >= stage.num_micro_batches
    }

    /// Computes the next micro-batch of `text` and adds it; returns false if the run should end.
    ///
    /// # Errors
    /// When the text cannot be read.
    pub(super) fn add_next(
        &mut self,
        with: Computing<'_>,
        text: StepText<'_>,
        clock: &mut Clock,
    ) -> Result<bool, DataError> {
        clock.run();
        let waiting = Instant::now();
        let tokens = text.tokens(self.num_micro_batches)?;
        clock.count_data_wait(waiting.elapsed());
        let (batch, stop) = (text.batch(&tokens), with.workers.stop.clone());
        let is_added = self.add(with, batch, move || stop.is_raised());
        clock.rest();
        Ok(is_added)
    }

    /// Computes `batch`, the next micro-batch, under `watch` and adds it; returns false if it was
    /// abandoned.
    pub(super) fn add(
        &mut self,
        with: Computing<'_>,
        batch: Batch,
        watch: impl StepWatch + Send + 'static,
    ) -> bool {
        let (model, input) = (with.model.clone(), with.input.clone());
        let (sum, mut gradients) = match self.sum.take() {
            Some((loss, gradients)) => (Some(loss), gradients),
            None => (None, Gradients::new(&with.workers.compute)),
        };
        let computed = with.workers.run(move || {
            micro_step(&model, &batch, &input, &watch, &mut gradients).map(|loss| (loss, gradients))
        });
        let Some((loss, gradients)) = computed.flatten() else { return false };
        let loss = match sum {
            Some(sum) => sum + loss,
            None => loss,
        };
        self.sum = Some((loss, gradients));
        self.num_micro_batches += 1;
        true
    }

    /// The loss, `[1, 1]`, and the gradient of every weight, with their names.
    pub(super) fn results(&self) -> impl Iterator<Item = (String, Tensor<2>)> {
        self.sum.iter().flat_map(|(loss, gradients)| {
            let loss = ("loss".to_owned(), loss.clone().reshape([1, 1]));
            let named = |(name, gradient): (&String, &Tensor<2>)| {
                (format!("gradient of {name}"), gradient.clone())
            };
            std::iter::once(loss).chain(gradients.sums.iter().map(named))
        })
    }

    /// The complete sum, in the form that the update needs.
    pub(super) fn finish(self, input: &StepInput) -> StepGradients {
        let (loss, gradients) = self.sum.expect("an update has at least one micro-batch");
        StepGradients { loss: loss * input.scale, gradients }
    }
}

impl StepText<'_> {
    /// The sequences of micro-batch `idx`, concatenated.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn tokens(&self, idx: usize) -> Result<Vec<u32>, DataError> {
        let sequence = self.stage.sequence_tokens();
        let mut tokens = vec![0; self.stage.micro_batch_size * sequence];
        let start = self.data_position + (idx * tokens.len()) as u64;
        for (idx, out) in tokens.chunks_mut(sequence).enumerate() {
            self.loader.read(start + (idx * sequence) as u64, out)?;
        }
        Ok(tokens)
    }

    /// A micro-batch of `tokens`.
    pub(super) fn batch(&self, tokens: &[u32]) -> Batch {
        Batch::new(tokens, self.stage.micro_batch_size, self.stage.patch_size)
    }
}
