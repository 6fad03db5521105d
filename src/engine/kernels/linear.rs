//! `ops::linear` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, tensor};
use super::matmul::{Matrix, MatrixMut, Old, multiply, product};

/// `rows W^T`.
pub fn forward(rows: &Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let ([n, width], [out_width, _]) = (rows.dims(), weight.dims());
    let (rows, weight) = (Floats::of(rows.clone()), Floats::of(weight.clone()));
    sum_with(None, [n, out_width], Matrix::new(rows.values(), n, width), Matrix::new(weight.values(), out_width, width).transposed())
}

/// `sum + d_out W`.
pub fn d_rows(weight: &Tensor<2>, d_out: &Tensor<2>, sum: Option<Tensor<2>>) -> Tensor<2> {
    let ([out_width, width], [n, _]) = (weight.dims(), d_out.dims());
    let (weight, d_out) = (Floats::of(weight.clone()), Floats::of(d_out.clone()));
    sum_with(sum, [n, width], Matrix::new(d_out.values(), n, out_width), Matrix::new(weight.values(), out_width, width))
}

/// `sum + d_out^T rows`.
pub fn d_weight(rows: &Tensor<2>, d_out: &Tensor<2>, sum: Option<Tensor<2>>) -> Tensor<2> {
    let ([n, width], [_, out_width]) = (rows.dims(), d_out.dims());
    let (rows, d_out) = (Floats::of(rows.clone()), Floats::of(d_out.clone()));
    sum_with(sum, [out_width, width], Matrix::new(d_out.values(), n, out_width).transposed(), Matrix::new(rows.values(), n, width))
}

/// `sum + a b`.
fn sum_with(sum: Option<Tensor<2>>, [rows, columns]: [usize; 2], a: Matrix<'_>, b: Matrix<'_>) -> Tensor<2> {
    let Some(sum) = sum else { return tensor(product(a, b), [rows, columns]) };
    let mut out = Floats::of(sum).into_vec();
    multiply(&mut MatrixMut::new(&mut out, rows, columns), Old::Kept, a, b);
    tensor(out, [rows, columns])
}
