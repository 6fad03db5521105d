//! `ops::linear` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, tensor};
use super::matmul::{Matrix, sums};

/// `rows W^T` for each of `weights`.
pub fn forward<const N: usize>(rows: &Tensor<2>, weights: [&Tensor<2>; N]) -> [Tensor<2>; N] {
    let (rows, weights) = (Whole::of(rows), weights.map(Whole::of));
    let mut products =
        sums(weights.each_ref().map(|weight| (None, rows.matrix(), weight.matrix().transposed())));
    std::array::from_fn(|idx| {
        tensor(std::mem::take(&mut products[idx]), [rows.dims[0], weights[idx].dims[0]])
    })
}

/// Gradients of the rows, `d_out W`, and of the weight, `d_out^T rows`, added to `d_rows` and
/// `d_weight`.
pub fn backward(
    rows: &Tensor<2>,
    weight: &Tensor<2>,
    d_out: &Tensor<2>,
    d_rows: Option<Tensor<2>>,
    d_weight: Option<Tensor<2>>,
) -> (Tensor<2>, Tensor<2>) {
    let [rows, weight, d_out] = [rows, weight, d_out].map(Whole::of);
    let [d_rows, d_weight] =
        [d_rows, d_weight].map(|sum| sum.map(|sum| Floats::of(sum).into_vec()));
    let [d_rows, d_weight] = sums([
        (d_rows, d_out.matrix(), weight.matrix()),
        (d_weight, d_out.matrix().transposed(), rows.matrix()),
    ]);
    (tensor(d_rows, rows.dims), tensor(d_weight, weight.dims))
}

/// The values of a tensor and their shape.
struct Whole {
    values: Floats,
    dims: [usize; 2],
}

impl Whole {
    fn of(tensor: &Tensor<2>) -> Self {
        Self { values: Floats::of(tensor.clone()), dims: tensor.dims() }
    }

    fn matrix(&self) -> Matrix<'_> {
        Matrix::new(self.values.values(), self.dims[0], self.dims[1])
    }
}
