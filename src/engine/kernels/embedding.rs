//! `ops::embedding` on the CPU.

use burn::tensor::{Int, Tensor};

use super::host::{Floats, buffer, ids, tensor};
use super::matmul::MatrixMut;
use super::rows::{block_rows, for_each};
use super::vector::best;

/// Columns of the table that one thread adds to.
const BLOCK_COLUMNS: usize = 64;

/// The mean over the table rows of K ids each. `table`: `[V, D]`, `ids`: `[N * K]`. Returns `[N,
/// D]`.
pub fn forward(table: &Tensor<2>, token_ids: Tensor<1, Int>, k: usize) -> Tensor<2> {
    let [_, width] = table.dims();
    let (table, token_ids) = (Floats::of(table.clone()), ids(token_ids));
    let n = token_ids.len() / k;
    let mut out = buffer(n * width);
    let size = block_rows(width * k);
    let blocks = out.chunks_mut(size * width).zip(token_ids.chunks(size * k)).collect();
    for_each(blocks, |(out, token_ids): (&mut [f32], &[u32])| {
        best!({
            for (out, token_ids) in out.chunks_exact_mut(width).zip(token_ids.chunks_exact(k)) {
                for id in token_ids {
                    for (out, value) in
                        out.iter_mut().zip(&table.values()[*id as usize * width..][..width])
                    {
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
    tensor(out, [n, width])
}

/// `sum` with the gradient of the table added. `d_out`: `[N, D]`.
pub fn backward(
    sum: Tensor<2>,
    token_ids: Tensor<1, Int>,
    k: usize,
    d_out: Tensor<2>,
) -> Tensor<2> {
    let [rows, width] = sum.dims();
    let (mut out, d_out, token_ids) =
        (Floats::of(sum).into_vec(), Floats::of(d_out), ids(token_ids));
    // By columns: each table row is then added to in the order of its occurrences, for any number
    // of threads.
    let blocks = MatrixMut::new(&mut out, rows, width)
        .split_columns(BLOCK_COLUMNS)
        .into_iter()
        .enumerate()
        .collect();
    for_each(blocks, |(block, mut table): (usize, MatrixMut<'_>)| {
        best!({
            for (position, token_ids) in token_ids.chunks_exact(k).enumerate() {
                let d_row = &d_out.values()[position * width..][..width][block * BLOCK_COLUMNS..];
                for id in token_ids {
                    for (sum, d) in table.row(*id as usize).iter_mut().zip(d_row) {
                        *sum += d / k as f32;
                    }
                }
            }
        });
    });
    tensor(out, [rows, width])
}
