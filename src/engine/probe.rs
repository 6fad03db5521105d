//! Activation rates: which share of the feed-forward neurons of each layer is strongly active on a fixed batch.
//!
//! Our reading of the paper (section 4.5): output of the feed-forward block before the residual addition, |x| above the
//! threshold, averaged over positions and neurons, the model reading its own stage's patches. Reduced on the device.

use burn::tensor::{ExecutionError, Tensor, Transaction};

use crate::config::{ActivationTensor, ActivationsConfig};
use crate::engine::model::{LlamaForCausalLM, Positions};
use crate::engine::patch::{Batch, pool_patches};
use crate::run::LayerActivation;

/// Measures every layer of `model`, which must not record gradients.
///
/// # Errors
/// When the device fails.
pub fn layer_activations(
    model: &LlamaForCausalLM,
    batch: &Batch,
    positions: &Positions,
    config: &ActivationsConfig,
) -> Result<Vec<LayerActivation>, ExecutionError> {
    let mut measured = Vec::new();
    let embedded = model.model.embed_tokens.forward(batch.ids.clone());
    model.model.forward(pool_patches(embedded, batch.patch_size), positions, &mut |_, intermediate, output| {
        let tensor = match config.tensor {
            ActivationTensor::FfnOutput => output,
            ActivationTensor::Intermediate => intermediate,
        };
        let size = tensor.clone().abs();
        measured.push((mean(size.clone().greater_scalar(config.threshold).float()), mean(size)));
    });
    let numbers = measured.into_iter().fold(Transaction::default(), |read, (rate, mean_abs)| read.register(rate).register(mean_abs)).try_execute()?;
    let number = |idx: usize| numbers[idx].iter::<f64>().next().unwrap_or(f64::NAN);
    Ok((0..numbers.len() / 2).map(|layer| LayerActivation { rate: 100.0 * number(2 * layer), mean_abs: number(2 * layer + 1) }).collect())
}

/// Mean over rows of means over columns, `[1]`: the same order of additions on every run.
fn mean(matrix: Tensor<2>) -> Tensor<1> {
    matrix.mean_dim(1).mean_dim(0).reshape([1])
}
