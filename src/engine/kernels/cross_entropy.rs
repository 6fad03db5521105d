//! `ops::head` on the CPU: logits of a chunk of rows, their losses, and the gradient of the losses
//! in place of the logits.

use burn::tensor::Tensor;

use super::host::{Floats, buffer, ids, tensor};
use super::matmul::{Matrix, MatrixMut, Old, Product, compute};
use super::rows::for_each;
use super::vector::{TINY, best, log_sum_exp, settled, softmax};
use crate::engine::ops::head::{HeadStep, Targets};
use crate::plan::HEAD_ROWS;

/// Rows of logits per chunk without gradients: enough for the matrix product, few enough to stay in
/// the cache.
const LOSS_ROWS: usize = 256;

/// Losses of all targets, `[N, K]`.
pub fn forward(rows: &Tensor<2>, weight: &Tensor<2>, targets: &Targets) -> Tensor<2> {
    let dims = targets.mask.dims();
    let head = Head::new(rows, weight, targets);
    let mut losses = buffer(head.mask.values().len());
    let mut logits = head.logits_buffer(LOSS_ROWS);
    for (chunk, losses) in losses.chunks_mut(LOSS_ROWS * head.k).enumerate() {
        let first = chunk * LOSS_ROWS;
        let logits = head.logits(&mut logits, first, losses.len() / head.k);
        let rows = logits
            .chunks_exact(head.stride)
            .zip(losses.chunks_exact_mut(head.k))
            .enumerate()
            .collect();
        for_each(rows, |(idx, (logits, losses)): (usize, (&[f32], &mut [f32]))| {
            let logits = &logits[..head.vocabulary];
            let log_sum = best!(log_sum_exp(logits));
            head.write_losses(first + idx, log_sum, |id| logits[id], losses);
        });
    }
    tensor(losses, dims)
}

/// Sum of the losses, gradient of the rows, and `sum` with the gradient of the weight added.
pub fn forward_backward(
    rows: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &Targets,
    scale: f64,
    sum: Option<Tensor<2>>,
) -> HeadStep {
    let [n, width] = rows.dims();
    let head = Head::new(rows, weight, targets);
    let mut losses = buffer(head.mask.values().len());
    let mut d_rows = buffer(n * width);
    let mut logits = head.logits_buffer(HEAD_ROWS);
    let mut old = if sum.is_some() { Old::Kept } else { Old::Replaced };
    let mut d_weight =
        sum.map_or_else(|| buffer(head.vocabulary * width), |sum| Floats::of(sum).into_vec());
    for (chunk, (losses, d_rows)) in
        losses.chunks_mut(HEAD_ROWS * head.k).zip(d_rows.chunks_mut(HEAD_ROWS * width)).enumerate()
    {
        let (first, count) = (chunk * HEAD_ROWS, losses.len() / head.k);
        let logits = head.logits(&mut logits, first, count);
        let rows = logits
            .chunks_exact_mut(head.stride)
            .zip(losses.chunks_exact_mut(head.k))
            .enumerate()
            .collect();
        for_each(rows, |(idx, (logits, losses)): (usize, (&mut [f32], &mut [f32]))| {
            head.differentiate(first + idx, &mut logits[..head.vocabulary], losses, scale as f32);
        });
        let d_logits = Matrix::strided(logits, count, head.vocabulary, head.stride);
        compute([
            Product {
                out: MatrixMut::new(d_rows, count, width),
                old: Old::Replaced,
                a: d_logits,
                b: head.weight(),
            },
            Product {
                out: MatrixMut::new(&mut d_weight, head.vocabulary, width),
                old,
                a: d_logits.transposed(),
                b: head.rows(first, count),
            },
        ]);
        old = Old::Kept;
    }
    let loss_sum: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
    HeadStep {
        loss_sum: tensor(vec![loss_sum as f32], [1]),
        d_rows: tensor(d_rows, [n, width]),
        d_weight: tensor(d_weight, [head.vocabulary, width]),
    }
}

/// The inputs.
struct Head {
    rows: Floats,
    weight: Floats,
    mask: Floats,
    ids: Vec<u32>,
    num_rows: usize,
    width: usize,
    vocabulary: usize,
    /// Distance between rows of logits, in values.
    stride: usize,
    k: usize,
}

/// Values per cache line.
const LINE: usize = 16;

impl Head {
    fn new(rows: &Tensor<2>, weight: &Tensor<2>, targets: &Targets) -> Self {
        let ([num_rows, width], [vocabulary, _], [_, k]) =
            (rows.dims(), weight.dims(), targets.mask.dims());
        let (rows, weight, mask) = (
            Floats::of(rows.clone()),
            Floats::of(weight.clone()),
            Floats::of(targets.mask.clone()),
        );
        // An odd number of cache lines: with a power of two, a column of logits would map to a few
        // cache sets and evict itself while the weight's gradient is computed.
        let stride = (vocabulary.div_ceil(LINE) | 1) * LINE;
        Self {
            rows,
            weight,
            mask,
            ids: ids(targets.ids.clone()),
            num_rows,
            width,
            vocabulary,
            stride,
            k,
        }
    }

    fn weight(&self) -> Matrix<'_> {
        Matrix::new(self.weight.values(), self.vocabulary, self.width)
    }

    fn rows(&self, first: usize, count: usize) -> Matrix<'_> {
        Matrix::new(&self.rows.values()[first * self.width..], count, self.width)
    }

    fn logits_buffer(&self, rows: usize) -> Vec<f32> {
        buffer(rows.min(self.num_rows) * self.stride)
    }

    /// The logits of `count` rows starting at `first`, written into `room`.
    fn logits<'a>(&self, room: &'a mut [f32], first: usize, count: usize) -> &'a mut [f32] {
        let room = &mut room[..count * self.stride];
        let out = MatrixMut::strided(room, count, self.vocabulary, self.stride);
        compute([Product {
            out,
            old: Old::Replaced,
            a: self.rows(first, count),
            b: self.weight().transposed(),
        }]);
        room
    }

    fn write_losses(
        &self,
        row: usize,
        log_sum: f32,
        logit: impl Fn(usize) -> f32,
        losses: &mut [f32],
    ) {
        let (ids, mask) = (&self.ids[row * self.k..], &self.mask.values()[row * self.k..]);
        for ((loss, id), mask) in losses.iter_mut().zip(ids).zip(mask) {
            // A NaN logit must be detected even where nothing is scored: 0 times NaN is NaN.
            *loss = (log_sum - logit(*id as usize)) * mask;
        }
    }

    /// Writes the losses of a row and replaces its logits by the gradient of `scale` times their
    /// sum.
    fn differentiate(&self, row: usize, logits: &mut [f32], losses: &mut [f32], scale: f32) {
        let (ids, mask) =
            (&self.ids[row * self.k..][..self.k], &self.mask.values()[row * self.k..][..self.k]);
        let mut targets = losses.iter_mut().zip(ids).zip(mask);
        targets.by_ref().for_each(|((loss, id), _)| *loss = logits[*id as usize]);
        let (largest, total) = best!(softmax(logits));
        let log_sum = largest + total.ln();
        for (loss, mask) in losses.iter_mut().zip(mask) {
            *loss = (log_sum - *loss) * mask;
        }
        let factor = mask.iter().sum::<f32>() * scale;
        best!(logits.iter_mut().for_each(|value| *value = settled(*value * factor, TINY)));
        for (id, mask) in ids.iter().zip(mask) {
            logits[*id as usize] -= mask * scale;
        }
    }
}
