//! `ops::embedding` on the CPU.

use super::matrix::{Matrix, MatrixMut};
use super::rows::{block_rows, zeros};
use super::team::Team;
use super::vector::best;

/// Columns of the table that one thread adds to.
const BLOCK_COLUMNS: usize = 64;

/// The mean over the table rows of `k` ids each. `table`: `[V, D]`, `ids`: `[N * K]`. Returns `[N,
/// D]`.
pub fn forward(team: &Team, table: Matrix<'_>, ids: &[u32], k: usize) -> Vec<f32> {
    let width = table.columns;
    let mut out = zeros(team, ids.len() / k * width);
    let size = block_rows(width * k);
    let blocks = out.chunks_mut(size * width).zip(ids.chunks(size * k)).collect();
    team.for_each(blocks, |(out, ids): (&mut [f32], &[u32])| {
        best!({
            for (out, ids) in out.chunks_exact_mut(width).zip(ids.chunks_exact(k)) {
                for id in ids {
                    for (out, value) in out.iter_mut().zip(table.row(*id as usize)) {
                        *out += value;
                    }
                }
                if k > 1 {
                    for out in out {
                        *out /= k as f32;
                    }
                }
            }
        });
    });
    out
}

/// Adds the gradient of the table to `sum`, `[V, D]`. `d_out`: `[N, D]`.
pub fn backward(team: &Team, sum: MatrixMut<'_>, ids: &[u32], k: usize, d_out: &[f32]) {
    let width = sum.columns;
    // By columns: each table row is then added to in the order of its occurrences, for any number
    // of threads.
    let blocks = sum.split_columns(BLOCK_COLUMNS).into_iter().enumerate().collect();
    team.for_each(blocks, |(block, mut table): (usize, MatrixMut<'_>)| {
        best!({
            for (position, ids) in ids.chunks_exact(k).enumerate() {
                let d_row = &d_out[position * width..][..width][block * BLOCK_COLUMNS..];
                for id in ids {
                    for (sum, d) in table.row(*id as usize).iter_mut().zip(d_row) {
                        *sum += d / k as f32;
                    }
                }
            }
        });
    });
}
