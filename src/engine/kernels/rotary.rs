//! `ops::rotary` on the CPU.

use super::rows::block_rows;
use super::team::Team;
use super::vector::best;

/// Angles of the positions of a sequence, for pairs of values of a head.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Cosines, `[T, H/2]`.
    pub cos: &'a [f32],
    /// Sines, `[T, H/2]`.
    pub sin: &'a [f32],
    /// 1, or -1 to rotate back.
    pub direction: f32,
}

/// Rotates heads, `[B, T, heads, H]`, of which each position has `[num_heads, width]`.
pub fn turn(team: &Team, heads: &mut [f32], [num_heads, width]: [usize; 2], by: Turn<'_>) {
    let half = width / 2;
    let length = by.cos.len() / half;
    let row_width = num_heads * width;
    let size = block_rows(row_width);
    let blocks = heads.chunks_mut(size * row_width).enumerate().collect();
    team.for_each(blocks, |(block, rows): (usize, &mut [f32])| {
        best!({
            for (idx, row) in rows.chunks_exact_mut(row_width).enumerate() {
                let position = (block * size + idx) % length;
                let (cos, sin) =
                    (&by.cos[position * half..][..half], &by.sin[position * half..][..half]);
                for head in row.chunks_exact_mut(width) {
                    let (first, second) = head.split_at_mut(half);
                    for ((x, y), (cos, sin)) in
                        first.iter_mut().zip(second).zip(cos.iter().zip(sin))
                    {
                        let (old_x, old_y, sin) = (*x, *y, sin * by.direction);
                        *x = old_x * cos - old_y * sin;
                        *y = old_y * cos + old_x * sin;
                    }
                }
            }
        });
    });
}
