//! Sums of tensors.

use burn::tensor::Tensor;

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::sum;
use crate::engine::ops::cpu::{Floats, changed};

/// `a + b`, in the memory of `a` if no other tensor shares it.
pub fn add<const D: usize>(compute: &Compute, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match compute.path(&a) {
        Path::Cpu(team) => changed(a, |a| sum::add(team, a, &Floats::from(b))),
        Path::Composed => a + b,
    }
}

/// Global L2 norm of `matrices`, `[1]`; `None` if there is none.
///
/// Summed row by row and then over rows: a full sum on the CPU combines its parts in the order in
/// which threads finish, so that runs would differ in the last bit (burn-flex 0.22.1, reduce.rs).
pub fn norm<'a>(
    compute: &Compute,
    matrices: impl Iterator<Item = &'a Tensor<2>> + Clone,
) -> Option<Tensor<1>> {
    let first = matrices.clone().next()?;
    match compute.path(first) {
        Path::Cpu(team) => {
            let sum: f64 =
                matrices.map(|matrix| sum::sum_of_squares(team, &Floats::of(matrix))).sum();
            Some(Tensor::full([1], sum.sqrt() as f32, &first.device()))
        }
        Path::Composed => {
            let squares =
                |matrix: &Tensor<2>| matrix.clone().square().sum_dim(1).sum_dim(0).reshape([1]);
            matrices.map(squares).reduce(|sum, square| sum + square).map(Tensor::sqrt)
        }
    }
}
