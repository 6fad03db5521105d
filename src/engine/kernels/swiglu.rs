//! `ops::swiglu` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, buffer, tensor};
use super::rows::for_each;
use super::vector::{TINY, best, settled, sigmoid};

/// Values per block.
const BLOCK: usize = 8192;

/// `silu(gate) up`.
pub fn forward(gate: &Tensor<2>, up: &Tensor<2>) -> Tensor<2> {
    let dims = gate.dims();
    let (gate, up) = (Floats::of(gate.clone()), Floats::of(up.clone()));
    let mut out = buffer(gate.values().len());
    let blocks = gate
        .values()
        .chunks(BLOCK)
        .zip(up.values().chunks(BLOCK))
        .zip(out.chunks_mut(BLOCK))
        .collect();
    for_each(blocks, |((gate, up), out): ((&[f32], &[f32]), &mut [f32])| {
        best!({
            for ((gate, up), out) in gate.iter().zip(up).zip(out) {
                *out = settled(gate * sigmoid(*gate) * up, TINY);
            }
        });
    });
    tensor(out, dims)
}

/// Gradients of gate and up, in place.
pub fn backward(gate: Tensor<2>, up: Tensor<2>, d_out: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let dims = gate.dims();
    let (mut gate, mut up, d_out) =
        (Floats::of(gate).into_vec(), Floats::of(up).into_vec(), Floats::of(d_out));
    let blocks = gate
        .chunks_mut(BLOCK)
        .zip(up.chunks_mut(BLOCK))
        .zip(d_out.values().chunks(BLOCK))
        .collect();
    for_each(blocks, |((gate, up), d_out): ((&mut [f32], &mut [f32]), &[f32])| {
        best!({
            for ((gate, up), d_out) in gate.iter_mut().zip(up).zip(d_out) {
                let sigmoid = sigmoid(*gate);
                let activated = *gate * sigmoid;
                *gate = settled(d_out * *up * (activated - activated * sigmoid + sigmoid), TINY);
                *up = settled(d_out * activated, TINY);
            }
        });
    });
    (tensor(gate, dims), tensor(up, dims))
}
