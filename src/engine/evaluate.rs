//! Token-level (K = 1) loss on the validation text: the main curve, measured the same way in every stage.

use burn::tensor::{ExecutionError, Tensor};

use crate::config::PatchSize;
use crate::data::TokenStream;
use crate::engine::gradients::{scored_rows, trunk};
use crate::engine::loss::head_loss_value;
use crate::engine::model::{LlamaForCausalLM, Positions};
use crate::engine::patch::Batch;

/// What is evaluated on.
#[derive(Debug)]
pub struct Validation<'a> {
    /// The text.
    pub stream: &'a TokenStream,
    /// Tokens that are read, at most.
    pub max_tokens: u64,
    /// Sequences per forward pass.
    pub batch_size: usize,
    /// Forward passes that are computed at the same time.
    pub together: usize,
    /// T, and what the layers share for it.
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

/// Evaluates `model`, which must not record, on consecutive sequences; `None` if `stop` says so or there is no sequence.
///
/// # Errors
/// When the device fails.
pub fn token_loss(model: &LlamaForCausalLM, validation: &Validation<'_>, stop: &dyn Fn() -> bool) -> Result<Option<TokenLoss>, ExecutionError> {
    let length = validation.positions.num_positions;
    let num_sequences = (validation.stream.len().min(validation.max_tokens) / length as u64) as usize;
    let device = model.head().device();
    let mut sum: Option<Tensor<1>> = None;
    let starts: Vec<usize> = (0..num_sequences).step_by(validation.batch_size).collect();
    for group in starts.chunks(validation.together) {
        if stop() {
            return Ok(None);
        }
        let batch = |start: &usize| {
            let mut tokens = vec![0; validation.batch_size.min(num_sequences - start) * length];
            validation.stream.read((start * length) as u64, &mut tokens);
            Batch::new(&tokens, tokens.len() / length, PatchSize::ONE, &device)
        };
        for loss in losses(model, group.iter().map(batch).collect(), validation.positions) {
            sum = Some(sum.map_or_else(|| loss.clone(), |sum| sum + loss.clone()));
        }
    }
    let Some(sum) = sum else { return Ok(None) };
    let targets = (num_sequences * (length - 1)) as u64;
    let total = sum.try_into_data()?.iter::<f64>().next().unwrap_or(f64::NAN);
    Ok(Some(TokenLoss { mean: total / targets as f64, targets }))
}

/// Summed loss of each batch, in their order, each computed on a thread of its own.
fn losses(model: &LlamaForCausalLM, batches: Vec<Batch>, positions: &Positions) -> Vec<Tensor<1>> {
    let loss = |model: &LlamaForCausalLM, batch: &Batch, positions: &Positions| {
        let hidden = scored_rows(trunk(model, batch, positions), batch);
        head_loss_value(&hidden, &model.head(), &batch.targets)
    };
    std::thread::scope(|scope| {
        let spawn = |batch: Batch| {
            let (model, positions) = (model.clone(), positions.clone());
            scope.spawn(move || loss(&model, &batch, &positions))
        };
        let threads: Vec<_> = batches.into_iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
