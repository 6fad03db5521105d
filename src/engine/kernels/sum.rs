//! Sums of tensors, and of squares.

use super::team::Team;
use super::vector::{best, sum};

/// Values per block.
const BLOCK: usize = 16_384;

/// Adds `b` to `a`.
pub fn add(team: &Team, a: &mut [f32], b: &[f32]) {
    let blocks = a.chunks_mut(BLOCK).zip(b.chunks(BLOCK)).collect();
    team.for_each(blocks, |(a, b): (&mut [f32], &[f32])| {
        best!({
            for (a, b) in a.iter_mut().zip(b) {
                *a += b;
            }
        });
    });
}

/// The sum of the squares of all values.
pub fn sum_of_squares(team: &Team, values: &[f32]) -> f64 {
    let mut parts = vec![0.0; values.len().div_ceil(BLOCK)];
    let blocks = values.chunks(BLOCK).zip(&mut parts).collect();
    team.for_each(blocks, |(block, part): (&[f32], &mut f64)| {
        *part = f64::from(best!({ sum([block], |[x]| x * x) }));
    });
    parts.iter().sum()
}
