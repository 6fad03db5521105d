//! The activation probe: share of active feed-forward neurons per layer on a fixed batch.
//!
//! Our reading of the paper (section 4.5): output of the FFN before the residual addition, |x|
//! above the threshold, averaged over positions and neurons, with the patch size of the current
//! stage. Reduced on the device.

use std::convert::Infallible;

use burn::tensor::{ExecutionError, Tensor, Transaction};

use crate::config::{ActivationTensor, ActivationsConfig};
use crate::engine::batch::Batch;
use crate::engine::model::{LayerSaved, LlamaForCausalLM, Pass};
use crate::record::LayerActivation;

/// Measures every layer of `model`.
///
/// # Errors
/// When the device fails.
pub fn layer_activations(
    model: &LlamaForCausalLM,
    batch: &Batch,
    config: &ActivationsConfig,
) -> Result<Vec<LayerActivation>, ExecutionError> {
    let mut measured = Vec::new();
    for_each_layer(model, batch, config.tensor, &mut |size| {
        measured.push((mean(size.clone().greater_scalar(config.threshold).float()), mean(size)));
    });
    let numbers = measured
        .into_iter()
        .fold(Transaction::default(), |read, (rate, mean_abs)| {
            read.register(rate).register(mean_abs)
        })
        .try_execute()?;
    let number = |idx: usize| numbers[idx].iter::<f64>().next().unwrap_or(f64::NAN);
    Ok((0..numbers.len() / 2)
        .map(|layer| LayerActivation {
            rate: 100.0 * number(2 * layer),
            mean_abs: number(2 * layer + 1),
        })
        .collect())
}

/// Passes |x| of `tensor`, `[N, D]` or `[N, intermediate]`, to `visit`, from the first layer to the
/// last.
pub(super) fn for_each_layer(
    model: &LlamaForCausalLM,
    batch: &Batch,
    tensor: ActivationTensor,
    visit: &mut dyn FnMut(Tensor<2>),
) {
    let trunk = &model.model;
    let rows = trunk.embed(&batch.ids, batch.patch_size);
    let shared = trunk.shared_input(batch.positions());
    let Ok(_) = trunk.run_layers(rows, &shared, &mut Probe { tensor, visit });
}

/// A pass that passes on |x| of each layer.
struct Probe<'a> {
    tensor: ActivationTensor,
    visit: &'a mut dyn FnMut(Tensor<2>),
}

impl Pass for Probe<'_> {
    type Stop = Infallible;

    fn end_layer(&mut self, output: &Tensor<2>, saved: LayerSaved) {
        (self.visit)(match self.tensor {
            ActivationTensor::FfnOutput => output.clone().abs(),
            ActivationTensor::Intermediate => saved.into_intermediate().abs(),
        });
    }
}

/// Mean over rows of means over columns, `[1]`: the same order of additions on every run.
fn mean(matrix: Tensor<2>) -> Tensor<1> {
    matrix.mean_dim(1).mean_dim(0).reshape([1])
}
