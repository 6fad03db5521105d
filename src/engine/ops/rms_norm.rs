//! RMS normalization with a learned scale: `y = w n`, where `n = x r` and `r = 1 / sqrt(mean(x^2) +
//! epsilon)`.
//!
//! ```text
//! dn = w dy        dx = r (dn - n mean(n dn))        dw = sum over rows of n dy
//! ```

use burn::tensor::Tensor;

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::rms_norm;
use crate::engine::ops::cpu::{Floats, into_vec, tensor};
use crate::engine::ops::format::{to_type, wide};

/// Saved for the backward pass.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The input, `[N, D]`.
    pub rows: Tensor<2>,
    /// 1 / root mean square, `[N, 1]`.
    inverse_rms: Tensor<2>,
}

/// `rows`: `[N, D]`, `weight`: `[1, D]`, `epsilon`: added to the mean square. Returns `[N, D]`.
pub fn forward(
    compute: &Compute,
    rows: Tensor<2>,
    weight: &Tensor<2>,
    epsilon: f64,
) -> (Tensor<2>, Saved) {
    let (out, inverse_rms) = match compute.path(&rows) {
        Path::Cpu(team) => {
            let [n, width] = rows.dims();
            let (out, inverse_rms) =
                rms_norm::forward(team, &Floats::of(&rows), &Floats::of(weight), epsilon);
            (tensor(out, [n, width]), tensor(inverse_rms, [n, 1]))
        }
        Path::Composed => {
            let values = wide(rows.clone());
            let mean_square = values.clone().square().mean_dim(1); // [N, 1]
            // For an infinite mean square the inverse would be 0, and the row of zeros would look
            // healthy: this is NaN then, else 0.
            let overflow = mean_square.clone().sub(mean_square.clone()); // [N, 1]
            let inverse_rms = mean_square.add_scalar(epsilon).sqrt().recip() + overflow; // [N, 1]
            let out = values * inverse_rms.clone() * weight.clone(); // [N, D]
            (to_type(out, rows.dtype()), inverse_rms)
        }
    };
    (out, Saved { rows, inverse_rms })
}

/// `d_out`: `[N, D]`. `around`: `[N, D]`, the gradient of the same input through the residual
/// connection, if there is one. Returns the gradients of the input, `[N, D]`, plus `around`, and of
/// the weight, `[1, D]`.
pub fn backward(
    compute: &Compute,
    saved: Saved,
    weight: &Tensor<2>,
    d_out: Tensor<2>,
    around: Option<Tensor<2>>,
) -> (Tensor<2>, Tensor<2>) {
    let Saved { rows, inverse_rms } = saved;
    let [n, width] = rows.dims();
    match compute.path(&rows) {
        Path::Cpu(team) => {
            let normed = rms_norm::Normed {
                rows: &Floats::from(rows),
                inverse_rms: &Floats::from(inverse_rms),
                weight: &Floats::of(weight),
            };
            let (mut d_rows, around) = (into_vec(d_out), around.map(Floats::from));
            let d_weight = rms_norm::backward(team, normed, &mut d_rows, around.as_deref());
            (tensor(d_rows, [n, width]), tensor(d_weight, [1, width]))
        }
        Path::Composed => {
            let dtype = rows.dtype();
            let (rows, d_out) = (wide(rows), wide(d_out));
            let normalized = rows * inverse_rms.clone(); // [N, D]
            let products = normalized.clone() * d_out.clone(); // [N, D]
            // mean(n dn), with the weight inside: no second pass of products.
            let sums = products.clone().matmul(weight.clone().transpose()); // [N, 1]
            let mean = sums.div_scalar(width as f64); // [N, 1]
            let d_weight = products.sum_dim(0); // [1, D]
            let d_rows = (d_out * weight.clone() - normalized * mean) * inverse_rms; // [N, D]
            let d_rows = match around {
                Some(around) => d_rows + wide(around),
                None => d_rows,
            };
            (to_type(d_rows, dtype), d_weight)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};

    #[test]
    fn a_row_whose_squares_overflow_is_not_taken_for_zeros() {
        for (dtype, huge) in dtypes().into_iter().zip([3e38, 1e200]) {
            let rows = noise([3, 6], 1, dtype);
            let rows =
                rows.clone().slice_assign([1..2, 0..6], rows.narrow(0, 1, 1).mul_scalar(huge));
            let (out, _) = forward(&Compute::cpu(), rows, &noise([1, 6], 2, dtype), 1e-6);
            let values: Vec<f64> = out.to_data().iter::<f64>().collect();
            assert_eq!(
                values
                    .chunks(6)
                    .map(|row| row.iter().all(|value| value.is_finite()))
                    .collect::<Vec<_>>(),
                [true, false, true],
                "{dtype:?}"
            );
        }
    }

    #[test]
    fn gradients_are_those_that_burn_derives() {
        let compute = Compute::cpu();
        for dtype in dtypes() {
            // Few rows, and several blocks of rows of a kernel.
            for (n, width) in [(7, 6), (300, 100)] {
                let (rows, weight, d_out) = (
                    noise([n, width], 1, dtype),
                    noise([1, width], 2, dtype),
                    noise([n, width], 3, dtype),
                );
                let (out, saved) = forward(&compute, rows.clone(), &weight, 1e-6);
                let (d_rows, d_weight) =
                    backward(&compute, saved.clone(), &weight, d_out.clone(), None);
                let (d_sum, _) =
                    backward(&compute, saved, &weight, d_out.clone(), Some(rows.clone()));
                assert_same("d_rows and around", d_sum, d_rows.clone() + rows.clone());

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
}
