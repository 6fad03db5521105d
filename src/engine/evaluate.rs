//! Token-level (K = 1) loss on the validation text: the main curve, measured the same way in every stage.

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::data::TokenStream;
use crate::engine::error::EngineError;
use crate::engine::gradients::{scored_rows, trunk};
use crate::engine::loss::head_loss_value;
use crate::engine::model::{LlamaForCausalLM, Positions};
use crate::engine::patch::Batch;
use crate::engine::scalar::read;
use crate::engine::workers::{Computation, Workers};

/// Input of an evaluation.
#[derive(Debug)]
pub struct Validation<'a> {
    /// The validation text.
    pub stream: &'a TokenStream,
    /// Tokens that are read, at most.
    pub max_tokens: u64,
    /// Sequences per forward pass.
    pub batch_size: usize,
    /// The number of positions per sequence (T), and what the layers share for it.
    pub positions: &'a Positions,
}

/// A finished evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLoss {
    /// Nats per scored token.
    pub mean: f64,
    /// Tokens that were scored.
    pub targets: u64,
}

impl Validation<'_> {
    /// Whole sequences of T tokens that are evaluated.
    pub fn num_sequences(&self) -> usize {
        (self.stream.len().min(self.max_tokens) / self.positions.num_positions as u64) as usize
    }
}

/// Evaluates `model`, which must not record gradients, on at least one consecutive sequence; `None` if the run is to end.
///
/// # Errors
/// When the device fails.
pub fn token_loss(workers: &Workers, model: &LlamaForCausalLM, validation: &Validation<'_>) -> Result<Option<TokenLoss>, EngineError> {
    let length = validation.positions.num_positions;
    let num_sequences = validation.num_sequences();
    let device = model.head().device();
    let mut sum = Tensor::<1>::zeros([1], &device);
    let mut total = 0.0;
    let starts: Vec<usize> = (0..num_sequences).step_by(validation.batch_size).collect();
    for group in starts.chunks(workers.device.micro_batches_together) {
        let job = |start: &usize| {
            let mut tokens = vec![0; validation.batch_size.min(num_sequences - start) * length];
            validation.stream.read((start * length) as u64, &mut tokens);
            let batch = Batch::new(&tokens, tokens.len() / length, PatchSize::ONE, &device);
            let (model, positions) = (model.clone(), validation.positions.clone());
            Box::new(move || loss_sum(&model, &batch, &positions)) as Computation<Tensor<1>>
        };
        let Some(losses) = workers.run(group.iter().map(job).collect())? else { return Ok(None) };
        for loss in losses {
            sum = sum + loss;
        }
        // Waits for a GPU, so that a stop never finds a whole evaluation queued there.
        total = read(&sum)?;
    }
    let targets = (num_sequences * (length - 1)) as u64;
    Ok(Some(TokenLoss { mean: total / targets as f64, targets }))
}

/// Summed loss of one batch.
fn loss_sum(model: &LlamaForCausalLM, batch: &Batch, positions: &Positions) -> Tensor<1> {
    let hidden = scored_rows(trunk(model, batch, positions), batch);
    head_loss_value(&hidden, &model.head(), &batch.targets)
}
