//! `ops::linear` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, buffer, tensor};
use super::matmul::{Matrix, MatrixMut, Old, Threads, multiply};

/// `rows W^T`.
pub fn forward(rows: &Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let ([n, width], [out_width, _]) = (rows.dims(), weight.dims());
    let (rows, weight) = (Floats::of(rows.clone()), Floats::of(weight.clone()));
    product(None, [n, out_width], Matrix::new(rows.values(), n, width), Matrix::new(weight.values(), out_width, width).transposed())
}

/// `sum + d_out W`.
pub fn d_rows(weight: &Tensor<2>, d_out: &Tensor<2>, sum: Option<Tensor<2>>) -> Tensor<2> {
    let ([out_width, width], [n, _]) = (weight.dims(), d_out.dims());
    let (weight, d_out) = (Floats::of(weight.clone()), Floats::of(d_out.clone()));
    product(sum, [n, width], Matrix::new(d_out.values(), n, out_width), Matrix::new(weight.values(), out_width, width))
}

/// `sum + d_out^T rows`.
pub fn d_weight(rows: &Tensor<2>, d_out: &Tensor<2>, sum: Option<Tensor<2>>) -> Tensor<2> {
    let ([n, width], [_, out_width]) = (rows.dims(), d_out.dims());
    let (rows, d_out) = (Floats::of(rows.clone()), Floats::of(d_out.clone()));
    product(sum, [out_width, width], Matrix::new(d_out.values(), n, out_width).transposed(), Matrix::new(rows.values(), n, width))
}

fn product(sum: Option<Tensor<2>>, [rows, columns]: [usize; 2], a: Matrix<'_>, b: Matrix<'_>) -> Tensor<2> {
    let old = if sum.is_some() { Old::Kept } else { Old::Replaced };
    let mut out = sum.map_or_else(|| buffer(rows * columns), |sum| Floats::of(sum).into_vec());
    multiply(&mut MatrixMut::new(&mut out, rows, columns), old, a, b, Threads::All);
    tensor(out, [rows, columns])
}
