//! Token loss (K = 1) on the validation text: the main curve, measured in the same way in every
//! stage.

use std::ops::Range;

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::data::TokenStream;
use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::head;
use crate::engine::scalar::read_all;
use crate::engine::workers::Workers;

/// Input of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Validation<'a> {
    /// The validation text.
    pub stream: &'a TokenStream,
    /// Sequences per forward pass.
    pub batch_size: usize,
    /// Positions per sequence (T).
    pub context_length: usize,
}

/// A completed evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLoss {
    /// Nats per scored token.
    pub mean: f64,
    /// Standard error of the mean in nats, from the spread over sequences: tokens of one sequence
    /// are not independent. Sequences of the same long document are not quite independent
    /// either, so it is a little too small there. `None` for one sequence.
    pub standard_error: Option<f64>,
    /// Tokens scored.
    pub targets: u64,
}

impl Validation<'_> {
    /// Whole sequences of T tokens in the first `max_tokens` tokens of the text.
    pub fn num_sequences(&self, max_tokens: u64) -> usize {
        (self.stream.len().min(max_tokens) / self.context_length as u64) as usize
    }

    /// Scored tokens of a sequence: nothing predicts its first one.
    pub fn targets_per_sequence(&self) -> u64 {
        self.context_length as u64 - 1
    }
}

impl TokenLoss {
    /// The loss over sequences of `targets_per_sequence` scored tokens, whose losses add up to
    /// `sums`.
    pub fn of_sequences(sums: &[f64], targets_per_sequence: u64) -> Self {
        let (count, targets) = (sums.len() as f64, targets_per_sequence as f64);
        let mean = sums.iter().sum::<f64>() / count / targets;
        let squares: f64 = sums.iter().map(|sum| (sum / targets - mean).powi(2)).sum();
        let standard_error = (sums.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt());
        Self { mean, standard_error, targets: sums.len() as u64 * targets_per_sequence }
    }
}

/// The summed loss of each of `sequences`, in nats; `None` if the run is to end. `progress` hears
/// how many are done.
///
/// # Errors
/// When the device fails, or the text cannot be read.
pub fn sequence_losses(
    workers: &Workers,
    model: &LlamaForCausalLM,
    validation: &Validation<'_>,
    sequences: Range<usize>,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Vec<f64>>, EngineError> {
    let length = validation.context_length;
    let mut sums = Vec::with_capacity(sequences.len());
    for start in sequences.clone().step_by(validation.batch_size) {
        let num_sequences = validation.batch_size.min(sequences.end - start);
        let mut tokens = vec![0; num_sequences * length];
        validation.stream.read((start * length) as u64, &mut tokens)?;
        let batch = Batch::new(&tokens, num_sequences, PatchSize::ONE);
        let model = model.clone();
        let Some(losses) =
            workers.run(move || head::sums(token_losses(&model, &batch), num_sequences))
        else {
            return Ok(None);
        };
        // Waits for a GPU, so that a stop never finds a whole evaluation queued there.
        sums.extend(read_all(&losses)?);
        progress(sums.len() as u64);
    }
    Ok(Some(sums))
}

/// Losses of all targets of `batch`, `[N, K]`, 0 where nothing is scored.
pub fn token_losses(model: &LlamaForCausalLM, batch: &Batch) -> Tensor<2> {
    let trunk = &model.model;
    let hidden = trunk.forward(trunk.embed(&batch.ids, batch.patch_size), batch.positions());
    let input =
        head::Input { rows: &hidden, weight: &model.head().values, targets: &batch.targets };
    head::forward(&trunk.compute, input)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a calculation by hand: sequence means 1, 2 and 6, of 4 targets each.
    #[test]
    fn the_standard_error_is_that_of_the_mean_over_sequences() {
        let found = TokenLoss::of_sequences(&[4.0, 8.0, 24.0], 4);
        assert_eq!((found.mean, found.targets), (3.0, 12));
        // Sample variance (4 + 1 + 9) / 2 = 7; divided by 3 sequences.
        assert!((found.standard_error.unwrap() - (7.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(
            TokenLoss::of_sequences(&[8.0], 4),
            TokenLoss { mean: 2.0, standard_error: None, targets: 4 }
        );
    }
}
