//! `ops::head` on the CPU: logits of a chunk of rows, their losses, and the gradient of the losses
//! in place of the logits.

use super::matmul::compute;
use super::matrix::{Matrix, MatrixMut, Old, Product};
use super::rows::zeros;
use super::team::Team;
use super::vector::{TINY, best, log_sum_exp, settled, softmax};
use crate::plan::HEAD_ROWS;

/// Rows of logits per chunk without gradients: enough for the matrix product, few enough to stay in
/// the cache.
const LOSS_ROWS: usize = 256;

/// Rows to be scored against a vocabulary.
#[derive(Clone, Copy)]
pub struct Scored<'a> {
    /// `[N, D]`.
    pub rows: Matrix<'a>,
    /// `[V, D]`.
    pub weight: Matrix<'a>,
    /// Ids of the targets, `[N, K]`.
    pub ids: &'a [u32],
    /// Targets per row (K).
    pub k: usize,
    /// `[N, K]`: 1 if the target counts, else 0; `None` if all do.
    pub mask: Option<&'a [f32]>,
}

/// Sum of the losses, and gradients.
pub struct Step {
    /// Sum of the losses of all targets.
    pub loss_sum: f64,
    /// Gradient of the rows, `[N, D]`.
    pub d_rows: Vec<f32>,
    /// Gradient of the weight, `[V, D]`, plus the previous sum.
    pub d_weight: Vec<f32>,
}

/// Losses of all targets, `[N, K]`.
pub fn forward(team: &Team, scored: Scored<'_>) -> Vec<f32> {
    let head = Head::new(team, scored);
    let mut losses = zeros(team, scored.ids.len());
    let mut logits = head.logits_buffer(LOSS_ROWS);
    for (chunk, losses) in losses.chunks_mut(LOSS_ROWS * scored.k).enumerate() {
        let first = chunk * LOSS_ROWS;
        let logits = head.logits(&mut logits, first, losses.len() / scored.k);
        let rows = logits
            .chunks_exact(head.stride)
            .zip(losses.chunks_exact_mut(scored.k))
            .enumerate()
            .collect();
        team.for_each(rows, |(idx, (logits, losses)): (usize, (&[f32], &mut [f32]))| {
            let logits = &logits[..scored.weight.rows];
            let log_sum = best!(log_sum_exp(logits));
            for (loss, (id, mask)) in losses.iter_mut().zip(head.targets(first + idx)) {
                // A NaN logit must be detected even where nothing is scored: 0 times NaN is NaN.
                *loss = (log_sum - logits[id as usize]) * mask;
            }
        });
    }
    losses
}

/// Sum of the losses, gradient of the rows, and `sum` with the gradient of the weight added.
pub fn forward_backward(
    team: &Team,
    scored: Scored<'_>,
    scale: f64,
    sum: Option<Vec<f32>>,
) -> Step {
    let (width, vocabulary) = (scored.rows.columns, scored.weight.rows);
    let head = Head::new(team, scored);
    let mut losses = zeros(team, scored.ids.len());
    let mut d_rows = zeros(team, scored.rows.rows * width);
    let mut logits = head.logits_buffer(HEAD_ROWS);
    let mut old = if sum.is_some() { Old::Kept } else { Old::Replaced };
    let mut d_weight = sum.unwrap_or_else(|| zeros(team, vocabulary * width));
    for (chunk, (losses, d_rows)) in losses
        .chunks_mut(HEAD_ROWS * scored.k)
        .zip(d_rows.chunks_mut(HEAD_ROWS * width))
        .enumerate()
    {
        let (first, count) = (chunk * HEAD_ROWS, losses.len() / scored.k);
        let logits = head.logits(&mut logits, first, count);
        let rows = logits
            .chunks_exact_mut(head.stride)
            .zip(losses.chunks_exact_mut(scored.k))
            .enumerate()
            .collect();
        team.for_each(rows, |(idx, (logits, losses)): (usize, (&mut [f32], &mut [f32]))| {
            head.differentiate(first + idx, &mut logits[..vocabulary], losses, scale as f32);
        });
        let d_logits = Matrix::strided(logits, count, vocabulary, head.stride);
        let of_rows = Product {
            out: MatrixMut::new(d_rows, count, width),
            old: Old::Replaced,
            a: d_logits,
            b: scored.weight,
        };
        let of_weight = Product {
            out: MatrixMut::new(&mut d_weight, vocabulary, width),
            old,
            a: d_logits.transposed(),
            b: scored.rows.block(first..first + count, 0..width),
        };
        compute(team, [of_rows, of_weight]);
        old = Old::Kept;
    }
    let loss_sum = losses.iter().map(|loss| f64::from(*loss)).sum();
    Step { loss_sum, d_rows, d_weight }
}

/// The rows, and how their logits are laid out.
struct Head<'a> {
    team: &'a Team,
    scored: Scored<'a>,
    /// Distance between rows of logits, in values.
    stride: usize,
}

/// Values per cache line.
const LINE: usize = 16;

impl<'a> Head<'a> {
    fn new(team: &'a Team, scored: Scored<'a>) -> Self {
        // An odd number of cache lines: with a power of two, a column of logits would map to a few
        // cache sets and evict itself while the weight's gradient is computed.
        let stride = (scored.weight.rows.div_ceil(LINE) | 1) * LINE;
        Self { team, scored, stride }
    }

    fn logits_buffer(&self, rows: usize) -> Vec<f32> {
        zeros(self.team, rows.min(self.scored.rows.rows) * self.stride)
    }

    /// The logits of `count` rows starting at `first`, written into `room`.
    fn logits<'b>(&self, room: &'b mut [f32], first: usize, count: usize) -> &'b mut [f32] {
        let Scored { rows, weight, .. } = self.scored;
        let room = &mut room[..count * self.stride];
        let product = Product {
            out: MatrixMut::strided(room, count, weight.rows, self.stride),
            old: Old::Replaced,
            a: rows.block(first..first + count, 0..rows.columns),
            b: weight.transposed(),
        };
        compute(self.team, [product]);
        room
    }

    /// Ids and mask of the targets of a row.
    fn targets(&self, row: usize) -> impl Iterator<Item = (u32, f32)> {
        let Scored { ids, k, mask, .. } = self.scored;
        let targets = row * k..(row + 1) * k;
        targets.map(move |idx| (ids[idx], mask.map_or(1.0, |mask| mask[idx])))
    }

    /// Writes the losses of a row and replaces its logits by the gradient of `scale` times their
    /// sum.
    fn differentiate(&self, row: usize, logits: &mut [f32], losses: &mut [f32], scale: f32) {
        for (loss, (id, _)) in losses.iter_mut().zip(self.targets(row)) {
            *loss = logits[id as usize];
        }
        let (largest, total) = best!(softmax(logits));
        let log_sum = largest + total.ln();
        for (loss, (_, mask)) in losses.iter_mut().zip(self.targets(row)) {
            *loss = (log_sum - *loss) * mask;
        }
        let factor = self.targets(row).map(|(_, mask)| mask).sum::<f32>() * scale;
        best!(logits.iter_mut().for_each(|value| *value = settled(*value * factor, TINY)));
        for (id, mask) in self.targets(row) {
            logits[id as usize] -= mask * scale;
        }
    }
}
