//! A matrix product without bias: `y = x W^T`.
//!
//! ```text
//! dx = dy W        dW = dy^T x
//! ```

use std::mem::take;

use burn::tensor::Tensor;

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::matmul;
use crate::engine::ops::cpu::{Rows, into_vec, tensor};
use crate::engine::ops::format::wide;

/// Saved for the backward pass.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The input, `[N, in]`.
    pub rows: Tensor<2>,
}

/// Gradients to which those of a product are added.
#[derive(Debug, Default)]
pub struct Sums {
    /// Of the input, `[N, in]`, from other products that read it.
    pub d_rows: Option<Tensor<2>>,
    /// Of the weight, `[out, in]`, from other micro-batches.
    pub d_weight: Option<Tensor<2>>,
}

/// `rows`: `[N, in]`, `weight`: `[out, in]`, as Hugging Face stores it, in the same number format.
/// Returns `[N, out]`.
pub fn forward(compute: &Compute, rows: Tensor<2>, weight: &Tensor<2>) -> (Tensor<2>, Saved) {
    let ([out], saved) = forward_each(compute, rows, [weight]);
    (out, saved)
}

/// [`forward`] with each of `weights`, which the CPU computes together.
pub fn forward_each<const N: usize>(
    compute: &Compute,
    rows: Tensor<2>,
    weights: [&Tensor<2>; N],
) -> ([Tensor<2>; N], Saved) {
    let outs = match compute.path(&rows) {
        Path::Cpu(team) => {
            let (rows, weights) = (Rows::of(&rows), weights.map(Rows::of));
            let transposed = weights.each_ref().map(|weight| weight.matrix().transposed());
            let products = transposed.map(|weight| (None, rows.matrix(), weight));
            let mut outs = matmul::sums(team, products);
            std::array::from_fn(|idx| {
                tensor(take(&mut outs[idx]), [rows.dims[0], weights[idx].dims[0]])
            })
        }
        Path::Composed => weights.map(|weight| rows.clone().matmul(weight.clone().transpose())),
    };
    (outs, Saved { rows })
}

/// `d_out`: `[N, out]`. Returns the gradients of the input, `[N, in]`, and of the weight, `[out,
/// in]`, each added to that in `sums`, if any; the latter is never narrower than f32.
pub fn backward(
    compute: &Compute,
    saved: Saved,
    weight: &Tensor<2>,
    d_out: Tensor<2>,
    sums: Sums,
) -> (Tensor<2>, Tensor<2>) {
    match compute.path(&d_out) {
        Path::Cpu(team) => {
            let [rows, weight, d_out] = [&saved.rows, weight, &d_out].map(Rows::of);
            let [of_rows, of_weight] = [sums.d_rows, sums.d_weight].map(|sum| sum.map(into_vec));
            let [d_rows, d_weight] = matmul::sums(
                team,
                [
                    (of_rows, d_out.matrix(), weight.matrix()),
                    (of_weight, d_out.matrix().transposed(), rows.matrix()),
                ],
            );
            (tensor(d_rows, rows.dims), tensor(d_weight, weight.dims))
        }
        Path::Composed => {
            // Sums over micro-batches stay in f32.
            let d_weight = wide(d_out.clone().transpose().matmul(saved.rows)); // [out, in]
            let d_rows = d_out.matmul(weight.clone()); // [N, in]
            let plus = |sum: Option<Tensor<2>>, part: Tensor<2>| match sum {
                Some(sum) => sum + part,
                None => part,
            };
            (plus(sums.d_rows, d_rows), plus(sums.d_weight, d_weight))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{assert_same, dtypes, noise, recorded};

    #[test]
    fn gradients_are_those_that_burn_derives() {
        let compute = Compute::cpu();
        for dtype in dtypes() {
            let (rows, weight, d_out) =
                (noise([7, 5], 1, dtype), noise([3, 5], 2, dtype), noise([7, 3], 3, dtype));
            let (out, saved) = forward(&compute, rows.clone(), &weight);
            let (d_rows, d_weight) =
                backward(&compute, saved.clone(), &weight, d_out.clone(), Sums::default());
            let sums = Sums { d_rows: Some(rows.clone()), d_weight: Some(weight.clone()) };
            let (more_d_rows, more_d_weight) =
                backward(&compute, saved, &weight, d_out.clone(), sums);
            assert_same("d_rows and the sum before", more_d_rows, d_rows.clone() + rows.clone());
            assert_same(
                "d_weight and the sum before",
                more_d_weight,
                d_weight.clone() + weight.clone(),
            );

            let ([first, second], _) =
                forward_each(&compute, rows.clone(), [&weight, &(weight.clone() * 2.0)]);
            assert_same("the first of two", first, out.clone());
            assert_same("the second of two", second, out.clone() * 2.0);

            let (rows, weight) = (recorded(&rows), recorded(&weight));
            let expected = rows.clone().matmul(weight.clone().transpose());
            let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
            assert_same("out", out, expected.inner());
            assert_same("d_rows", d_rows, rows.grad(&gradients).unwrap());
            assert_same("d_weight", d_weight, weight.grad(&gradients).unwrap());
        }
    }
}
