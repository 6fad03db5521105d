//! Sums of tensors, and of squares.

use burn::tensor::Tensor;

use super::host::{Floats, tensor};
use super::rows::for_each;
use super::vector::{best, sum};

/// Values per block.
const BLOCK: usize = 16_384;

/// `a + b`, in the memory of `a` if no other tensor shares it.
pub fn add<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let dims = a.dims();
    let (mut out, b) = (Floats::of(a).into_vec(), Floats::of(b));
    let blocks = out.chunks_mut(BLOCK).zip(b.values().chunks(BLOCK)).collect();
    for_each(blocks, |(out, b): (&mut [f32], &[f32])| {
        best!({
            for (out, b) in out.iter_mut().zip(b) {
                *out += b;
            }
        });
    });
    tensor(out, dims)
}

/// The sum of the squares of all values.
pub fn sum_of_squares<const D: usize>(values: Tensor<D>) -> f64 {
    let values = Floats::of(values);
    let mut parts = vec![0.0; values.values().len().div_ceil(BLOCK)];
    for_each(
        values.values().chunks(BLOCK).zip(&mut parts).collect(),
        |(block, part): (&[f32], &mut f64)| {
            *part = f64::from(best!({ sum([block], |[x]| x * x) }));
        },
    );
    parts.iter().sum()
}
