//! `ops::rms_norm` on the CPU.

use super::rows::{block_rows, zeros};
use super::team::Team;
use super::vector::{best, sum};

/// Returns the normalized rows, `[N, D]`, and 1 / root mean square of each, `[N, 1]`.
pub fn forward(team: &Team, rows: &[f32], weight: &[f32], epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let (width, size) = (weight.len(), block_rows(weight.len()));
    let (mut out, mut inverse_rms) = (zeros(team, rows.len()), zeros(team, rows.len() / width));
    let blocks = rows
        .chunks(size * width)
        .zip(out.chunks_mut(size * width))
        .zip(inverse_rms.chunks_mut(size))
        .collect();
    team.for_each(blocks, |((rows, out), inverse_rms): ((&[f32], &mut [f32]), &mut [f32])| {
        best!({
            for ((row, out), inverse) in
                rows.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(inverse_rms)
            {
                let mean_square = sum([row], |[x]| x * x) / width as f32;
                // For an infinite mean square this would be 0, and the row of zeros would look
                // healthy.
                *inverse = if mean_square.is_finite() {
                    1.0 / (mean_square + epsilon as f32).sqrt()
                } else {
                    f32::NAN
                };
                for ((out, x), w) in out.iter_mut().zip(row).zip(weight) {
                    *out = x * *inverse * w;
                }
            }
        });
    });
    (out, inverse_rms)
}

/// What the forward pass read and computed.
#[derive(Debug, Clone, Copy)]
pub struct Normed<'a> {
    /// The input, `[N, D]`.
    pub rows: &'a [f32],
    /// 1 / root mean square of each row, `[N, 1]`.
    pub inverse_rms: &'a [f32],
    /// The scale, `[1, D]`.
    pub weight: &'a [f32],
}

/// Rows, their 1 / root mean square, what is added to their gradients, the gradients, and the
/// block's share of the weight gradient.
type BackwardBlock<'a> = ((((&'a [f32], &'a [f32]), &'a [f32]), &'a mut [f32]), &'a mut [f32]);

/// Replaces the gradient of the output, `d_rows`, by that of the input, with `around` added.
/// Returns the gradient of the weight.
pub fn backward(
    team: &Team,
    normed: Normed<'_>,
    d_rows: &mut [f32],
    around: Option<&[f32]>,
) -> Vec<f32> {
    let weight = normed.weight;
    let (width, size) = (weight.len(), block_rows(weight.len()));
    let num_blocks = normed.inverse_rms.len().div_ceil(size);
    let mut d_weights = zeros(team, num_blocks * width);
    let nothing: &[f32] = &[];
    let around: Vec<&[f32]> = match around {
        Some(around) => around.chunks(size * width).collect(),
        None => vec![nothing; num_blocks],
    };
    let inputs = normed.rows.chunks(size * width).zip(normed.inverse_rms.chunks(size)).zip(around);
    let blocks =
        inputs.zip(d_rows.chunks_mut(size * width)).zip(d_weights.chunks_mut(width)).collect();
    team.for_each(
        blocks,
        |((((rows, inverse_rms), around), d_rows), d_weight): BackwardBlock<'_>| {
            best!({
                for (idx, inverse) in inverse_rms.iter().enumerate() {
                    let (row, d_row) =
                        (&rows[idx * width..][..width], &mut d_rows[idx * width..][..width]);
                    let inverse = *inverse;
                    // mean(n dn), where n is the normalized row and dn = w dy.
                    let mean =
                        inverse * sum([row, d_row, weight], |[x, d, w]| x * d * w) / width as f32;
                    for (((d, x), w), d_weight) in
                        d_row.iter_mut().zip(row).zip(weight).zip(d_weight.iter_mut())
                    {
                        let normalized = x * inverse;
                        *d_weight += *d * normalized;
                        *d = (*d * w - normalized * mean) * inverse;
                    }
                    if !around.is_empty() {
                        for (d, around) in d_row.iter_mut().zip(&around[idx * width..][..width]) {
                            *d += around;
                        }
                    }
                }
            });
        },
    );
    let (mut d_weight, rest) = (d_weights[..width].to_vec(), &d_weights[width..]);
    for part in rest.chunks_exact(width) {
        for (sum, part) in d_weight.iter_mut().zip(part) {
            *sum += part;
        }
    }
    d_weight
}
