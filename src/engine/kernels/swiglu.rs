//! `ops::swiglu` on the CPU.

use super::rows::zeros;
use super::team::Team;
use super::vector::{TINY, best, settled, sigmoid};

/// Values per block.
const BLOCK: usize = 8192;

/// `silu(gate) up`.
pub fn forward(team: &Team, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = zeros(team, gate.len());
    let blocks = gate.chunks(BLOCK).zip(up.chunks(BLOCK)).zip(out.chunks_mut(BLOCK)).collect();
    team.for_each(blocks, |((gate, up), out): ((&[f32], &[f32]), &mut [f32])| {
        best!({
            for ((gate, up), out) in gate.iter().zip(up).zip(out) {
                *out = settled(gate * sigmoid(*gate) * up, TINY);
            }
        });
    });
    out
}

/// Replaces gate and up by their gradients.
pub fn backward(team: &Team, gate: &mut [f32], up: &mut [f32], d_out: &[f32]) {
    let blocks =
        gate.chunks_mut(BLOCK).zip(up.chunks_mut(BLOCK)).zip(d_out.chunks(BLOCK)).collect();
    team.for_each(blocks, |((gate, up), d_out): ((&mut [f32], &mut [f32]), &[f32])| {
        best!({
            for ((gate, up), d_out) in gate.iter_mut().zip(up).zip(d_out) {
                let sigmoid = sigmoid(*gate);
                let activated = *gate * sigmoid;
                *gate = settled(d_out * *up * (activated - activated * sigmoid + sigmoid), TINY);
                *up = settled(d_out * activated, TINY);
            }
        });
    });
}
