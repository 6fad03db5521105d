//! Root-mean-square normalisation with a learned scale: `y = w n`, where `n = x r` and `r = 1 / sqrt(mean(x^2) + epsilon)`.
//!
//! ```text
//! dn = w dy        dx = r (dn - n mean(n dn))        dw = sum over rows of n dy
//! ```

use burn::tensor::Tensor;

/// What the backward pass needs.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The input divided by its root mean square, `[N, D]`.
    normalized: Tensor<2>,
    /// 1 / root mean square, `[N, 1]`.
    inverse_rms: Tensor<2>,
}

/// `rows`: `[N, D]`, `weight`: `[1, D]`, `epsilon`: added to the mean square. Returns `[N, D]`.
pub fn forward(rows: Tensor<2>, weight: &Tensor<2>, epsilon: f64) -> (Tensor<2>, Saved) {
    let mean_square = rows.clone().square().mean_dim(1); // [N, 1]
    let inverse_rms = mean_square.add_scalar(epsilon).sqrt().recip(); // [N, 1]
    let normalized = rows * inverse_rms.clone(); // [N, D]
    (normalized.clone() * weight.clone(), Saved { normalized, inverse_rms })
}

/// `d_out`: `[N, D]`. Returns the gradients of the input, `[N, D]`, and of the weight, `[1, D]`.
pub fn backward(saved: Saved, weight: &Tensor<2>, d_out: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let Saved { normalized, inverse_rms } = saved;
    let width = weight.dims()[1] as f64;
    let products = normalized.clone() * d_out.clone(); // [N, D]
    // mean(n dn), with the weight inside: no second pass of products.
    let mean = products.clone().matmul(weight.clone().transpose()).div_scalar(width); // [N, 1]
    let d_weight = products.sum_dim(0); // [1, D]
    let d_rows = (d_out * weight.clone() - normalized * mean) * inverse_rms; // [N, D]
    (d_rows, d_weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};

    #[test]
    fn gradients_are_those_that_burn_derives() {
        for dtype in dtypes() {
            let (rows, weight, d_out) = (noise([7, 6], 1, dtype), noise([1, 6], 2, dtype), noise([7, 6], 3, dtype));
            let (out, saved) = forward(rows.clone(), &weight, 1e-6);
            let (d_rows, d_weight) = backward(saved, &weight, d_out.clone());

            let (rows, weight) = (recorded(&rows), recorded(&weight));
            let mean_square = rows.clone().square().mean_dim(1);
            let expected = rows.clone() / mean_square.add_scalar(1e-6).sqrt() * weight.clone();
            let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
            assert_same("out", out, expected.inner());
            assert_same("d_rows", d_rows, rows.grad(&gradients).unwrap());
            assert_same("d_weight", d_weight, weight.grad(&gradients).unwrap());
        }
    }
}
