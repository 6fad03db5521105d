//! `ops::rms_norm` on the CPU.

use burn::tensor::Tensor;

use super::host::{Floats, buffer, tensor};
use super::rows::{block_rows, for_each};
use super::vector::{best, sum};

/// Returns the normalized rows, `[N, D]`, and 1 / root mean square of each, `[N, 1]`.
pub fn forward(rows: &Tensor<2>, weight: &Tensor<2>, epsilon: f64) -> (Tensor<2>, Tensor<2>) {
    let [n, width] = rows.dims();
    let (rows, weight) = (Floats::of(rows.clone()), Floats::of(weight.clone()));
    let (mut out, mut inverse_rms) = (buffer(n * width), buffer(n));
    let (weight, size) = (weight.values(), block_rows(width));
    let blocks = rows
        .values()
        .chunks(size * width)
        .zip(out.chunks_mut(size * width))
        .zip(inverse_rms.chunks_mut(size))
        .collect();
    for_each(blocks, |((rows, out), inverse_rms): ((&[f32], &mut [f32]), &mut [f32])| {
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
    (tensor(out, [n, width]), tensor(inverse_rms, [n, 1]))
}

/// Rows, their 1 / root mean square, what is added to their gradients, the gradients, and the
/// block's share of the weight gradient.
type BackwardBlock<'a> = ((((&'a [f32], &'a [f32]), &'a [f32]), &'a mut [f32]), &'a mut [f32]);

/// Returns the gradients of the rows, with `around` added, and of the weight.
pub fn backward(
    rows: Tensor<2>,
    inverse_rms: Tensor<2>,
    weight: &Tensor<2>,
    d_out: Tensor<2>,
    around: Option<Tensor<2>>,
) -> (Tensor<2>, Tensor<2>) {
    let [n, width] = rows.dims();
    let (rows, inverse_rms, weight) =
        (Floats::of(rows), Floats::of(inverse_rms), Floats::of(weight.clone()));
    let around = around.map(Floats::of);
    let mut d_rows = Floats::of(d_out).into_vec();
    let (weight, size) = (weight.values(), block_rows(width));
    let mut d_weights = buffer(n.div_ceil(size) * width);
    let nothing: &[f32] = &[];
    let around: Vec<&[f32]> = match &around {
        Some(around) => around.values().chunks(size * width).collect(),
        None => vec![nothing; n.div_ceil(size)],
    };
    let inputs =
        rows.values().chunks(size * width).zip(inverse_rms.values().chunks(size)).zip(around);
    let blocks =
        inputs.zip(d_rows.chunks_mut(size * width)).zip(d_weights.chunks_mut(width)).collect();
    for_each(blocks, |((((rows, inverse_rms), around), d_rows), d_weight): BackwardBlock<'_>| {
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
    });
    let (mut d_weight, rest) = (d_weights[..width].to_vec(), &d_weights[width..]);
    for part in rest.chunks_exact(width) {
        for (sum, part) in d_weight.iter_mut().zip(part) {
            *sum += part;
        }
    }
    (tensor(d_rows, [n, width]), tensor(d_weight, [1, width]))
}
