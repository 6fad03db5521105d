//! The three layers with weights, with Hugging Face's layout and names: an operation, its weight,
//! and the accumulation of the weight's gradient.

use burn::tensor::Tensor;

use crate::config::PatchSize;
use crate::engine::compute::Compute;
use crate::engine::gradients::Gradients;
use crate::engine::named_tensor::NamedTensor;
use crate::engine::ops::{embedding, linear, rms_norm};

/// A matrix product without bias.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`, as Hugging Face stores it.
    pub weight: NamedTensor,
}

/// A table with one row per token.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[V, D]`.
    pub weight: NamedTensor,
}

/// RMS normalization with a learned scale.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    /// `[1, D]`, in files `[D]`.
    pub weight: NamedTensor,
    /// Epsilon.
    pub epsilon: f64,
}

impl Linear {
    pub(super) fn map(self, change: &mut dyn FnMut(NamedTensor) -> NamedTensor) -> Self {
        Self { weight: change(self.weight) }
    }

    /// `rows`: `[N, in]`. Returns `[N, out]`.
    pub fn forward(&self, compute: &Compute, rows: Tensor<2>) -> (Tensor<2>, linear::Saved) {
        linear::forward(compute, rows, &self.weight.values)
    }

    /// [`Self::forward`] of each of `layers` for the same input.
    pub fn forward_each<const N: usize>(
        layers: [&Self; N],
        compute: &Compute,
        rows: Tensor<2>,
    ) -> ([Tensor<2>; N], linear::Saved) {
        linear::forward_each(compute, rows, layers.map(|layer| &layer.weight.values))
    }

    /// `d_out`: `[N, out]`. Returns `[N, in]`, plus `d_rows`, the gradient of the same input
    /// through another product.
    pub fn backward(
        &self,
        saved: linear::Saved,
        d_out: Tensor<2>,
        d_rows: Option<Tensor<2>>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let sums = linear::Sums { d_rows, d_weight: gradients.take(&self.weight) };
        let (d_rows, d_weight) =
            linear::backward(&gradients.compute, saved, &self.weight.values, d_out, sums);
        gradients.put(&self.weight, d_weight);
        d_rows
    }
}

impl Embedding {
    /// `ids`: `[N * K]`. Returns one row for each patch, `[N, D]`.
    pub fn forward(&self, compute: &Compute, ids: &[u32], patch_size: PatchSize) -> Tensor<2> {
        embedding::forward(compute, &self.weight.values, ids, patch_size)
    }

    /// `d_out`: `[N, D]`.
    pub fn backward(
        &self,
        ids: &[u32],
        patch_size: PatchSize,
        d_out: Tensor<2>,
        gradients: &mut Gradients,
    ) {
        let sum = gradients.take(&self.weight).unwrap_or_else(|| self.weight.values.zeros_like());
        let sum = embedding::backward(&gradients.compute, sum, ids, patch_size, d_out);
        gradients.put(&self.weight, sum);
    }
}

impl RmsNorm {
    pub(super) fn map(self, change: &mut dyn FnMut(NamedTensor) -> NamedTensor) -> Self {
        Self { weight: change(self.weight), epsilon: self.epsilon }
    }

    /// `rows`: `[N, D]`. Returns the same shape.
    pub fn forward(&self, compute: &Compute, rows: Tensor<2>) -> (Tensor<2>, rms_norm::Saved) {
        rms_norm::forward(compute, rows, &self.weight.values, self.epsilon)
    }

    /// `d_out`: `[N, D]`. Returns the same shape, plus `around`, the gradient of the same input
    /// through the residual connection.
    pub fn backward(
        &self,
        saved: rms_norm::Saved,
        d_out: Tensor<2>,
        around: Option<Tensor<2>>,
        gradients: &mut Gradients,
    ) -> Tensor<2> {
        let (d_rows, d_weight) =
            rms_norm::backward(&gradients.compute, saved, &self.weight.values, d_out, around);
        gradients.add(&self.weight, d_weight);
        d_rows
    }
}
