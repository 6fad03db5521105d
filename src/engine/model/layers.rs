//! The three layers that hold weights, with Hugging Face's layout and names.
//!
//! Activations are kept as `[N, D]` rows, `N = B * T`: a matrix product with two axes is one call of the fastest kernel, and its
//! gradient needs no sum over a batch axis.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};

/// A matrix product without bias.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as Hugging Face stores it.
    pub weight: Param<Tensor<2>>,
}

/// A table of one row per token.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[V, D]`.
    pub weight: Param<Tensor<2>>,
}

/// Root-mean-square normalisation with a learned scale.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    /// Added to the mean square.
    epsilon: f64,
}

impl Linear {
    /// `rows`: `[N, in]`. Returns `[N, out]`.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        rows.matmul(self.weight.val().transpose())
    }
}

impl Embedding {
    /// `ids`: `[N]`. Returns `[N, D]`.
    pub fn forward(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        self.weight.val().select(0, ids)
    }
}

impl RmsNorm {
    /// Wraps `weight` of shape `[D]`.
    pub fn new(weight: Param<Tensor<1>>, epsilon: f64) -> Self {
        Self { weight, epsilon }
    }

    /// `rows`: `[N, D]`. Returns the same shape.
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let mean_square = rows.clone().square().mean_dim(1); // [N, 1]
        let scale = mean_square.add_scalar(self.epsilon).sqrt().recip(); // [N, 1]
        rows * scale * self.weight.val().unsqueeze() // [N, D]
    }
}
