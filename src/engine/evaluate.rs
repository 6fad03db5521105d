//! Token loss (K = 1) on the validation text: the main curve, measured in the same way in every stage.

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::data::TokenStream;
use crate::engine::batch::Batch;
use crate::engine::error::EngineError;
use crate::engine::model::LlamaForCausalLM;
use crate::engine::ops::head;
use crate::engine::scalar::read;
use crate::engine::workers::Workers;

/// Input of an evaluation.
#[derive(Debug)]
pub struct Validation<'a> {
    /// The validation text.
    pub stream: &'a TokenStream,
    /// Maximum number of tokens.
    pub max_tokens: u64,
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
    /// Tokens scored.
    pub targets: u64,
}

impl Validation<'_> {
    /// Number of complete sequences of T tokens to evaluate.
    pub fn num_sequences(&self) -> usize {
        (self.stream.len().min(self.max_tokens) / self.context_length as u64) as usize
    }
}

/// Evaluates `model` on at least one consecutive sequence; `None` if the run should end. `progress` gets sequences done and total.
///
/// # Errors
/// When the device fails, or the text cannot be read.
pub fn token_loss(
    workers: &Workers,
    model: &LlamaForCausalLM,
    validation: &Validation<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<TokenLoss>, EngineError> {
    let length = validation.context_length;
    let num_sequences = validation.num_sequences();
    let device = model.head().values.device();
    let mut sum = Tensor::<1>::zeros([1], &device);
    let (mut total, mut targets) = (0.0, 0);
    for start in (0..num_sequences).step_by(validation.batch_size) {
        let end = num_sequences.min(start + validation.batch_size);
        let mut tokens = vec![0; (end - start) * length];
        validation.stream.read((start * length) as u64, &mut tokens)?;
        let batch = Batch::new(&tokens, end - start, PatchSize::ONE, &device);
        targets += batch.num_targets;
        let model = model.clone();
        let Some(loss) = workers.run(move || head::sum(token_losses(&model, &batch))) else { return Ok(None) };
        sum = sum + loss;
        // Waits for a GPU, so that a stop never finds a whole evaluation in its queue.
        total = read(&sum)?;
        progress(end as u64, num_sequences as u64);
    }
    Ok(Some(TokenLoss { mean: total / targets as f64, targets }))
}

/// Losses of all targets of `batch`, `[N, K]`, 0 where nothing is scored.
pub fn token_losses(model: &LlamaForCausalLM, batch: &Batch) -> Tensor<2> {
    let embedded = model.model.embed_tokens.forward(batch.ids.clone(), batch.patch_size);
    let hidden = model.model.forward(embedded, batch.positions());
    head::forward(&hidden, &model.head().values, &batch.targets)
}
