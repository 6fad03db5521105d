//! Loss and gradients of one update, summed over its micro-batches.
//!
//! Reads the text and runs the network; independent of what happens between two groups of
//! micro-batches. Start at [`Accumulation::add_next`].

use std::time::Instant;

use burn::tensor::Tensor;

use crate::data::DataError;
use crate::engine::batch::Batch;
use crate::engine::gradients::Gradients;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::objective::StepText;
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
        let batch = text.batch(self.num_micro_batches)?;
        clock.count_data_wait(waiting.elapsed());
        let stop = with.workers.stop.clone();
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
