//! `ops::rotary` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, tensor};
use super::rows::{block_rows, for_each};
use super::vector::best;

/// Rotates `heads`, `[B, T, heads, H]`, in place. `cos` and `sin`: `[1, T, 1, H/2]`. With
/// `direction` -1 it rotates back.
pub fn turn(heads: Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>, direction: f32) -> Tensor<4> {
    let dims = heads.dims();
    let [_, length, num_heads, width] = dims;
    let (cos, sin) = (Floats::of(cos.clone()), Floats::of(sin.clone()));
    let (cos, sin, half) = (cos.values(), sin.values(), width / 2);
    let mut out = Floats::of(heads).into_vec();
    let row_width = num_heads * width;
    let size = block_rows(row_width);
    let blocks = out.chunks_mut(size * row_width).enumerate().collect();
    for_each(blocks, |(block, rows): (usize, &mut [f32])| {
        best!({
            for (idx, row) in rows.chunks_exact_mut(row_width).enumerate() {
                let position = (block * size + idx) % length;
                let (cos, sin) = (&cos[position * half..][..half], &sin[position * half..][..half]);
                for head in row.chunks_exact_mut(width) {
                    let (first, second) = head.split_at_mut(half);
                    for ((x, y), (cos, sin)) in
                        first.iter_mut().zip(second).zip(cos.iter().zip(sin))
                    {
                        let (old_x, old_y, sin) = (*x, *y, sin * direction);
                        *x = old_x * cos - old_y * sin;
                        *y = old_y * cos + old_x * sin;
                    }
                }
            }
        });
    });
    tensor(out, dims)
}
