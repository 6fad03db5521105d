//! `ops::attention` on the CPU: each head of a sequence is a job; in the backward pass, each group
//! of heads that share keys.
//!
//! A job copies the keys and values it reads into the order of the products, since the rows of one
//! head are far apart in memory. A chunk's scores against all visible keys fit into the L2 cache;
//! nothing longer is kept.

use std::ops::Range;

use super::matrix::{Matrix, MatrixMut, Old};
use super::rows::zeros;
use super::small::{multiply, transposed};
use super::team::Team;
use super::vector::{TINY, best, settled, softmax, sum};
use crate::engine::positions::Positions;
use crate::plan::ATTENTION_QUERIES;

/// Smaller attention weights are set to zero: a row sums to 1, and an f32 has seven digits.
const LEAST_WEIGHT: f32 = 1e-20;

/// Sizes of a sequence's heads.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub groups: usize,
    /// Width of a head (H).
    pub width: usize,
    /// Queries of a sequence, and the keys that they attend to.
    pub positions: Positions,
    /// Keys of a sequence, of which the last ones may be unused.
    pub keys: usize,
}

/// Queries, keys and values, or their gradients.
#[derive(Debug, Clone, Copy)]
pub struct Heads<S> {
    /// `[B, queries, heads, H]`.
    pub queries: S,
    /// `[B, keys, groups, H]`.
    pub keys: S,
    /// `[B, keys, groups, H]`.
    pub values: S,
}

impl<S> Heads<S> {
    /// The same of each of the three.
    pub fn map<T>(self, f: impl Fn(S) -> T) -> Heads<T> {
        Heads { queries: f(self.queries), keys: f(self.keys), values: f(self.values) }
    }

    /// References to the three.
    pub fn each_ref(&self) -> Heads<&S> {
        Heads { queries: &self.queries, keys: &self.keys, values: &self.values }
    }
}

impl Sizes {
    /// Rows of one head of a sequence in `[B, queries, heads, H]`.
    fn of_head<'a>(
        &self,
        values: &'a [f32],
        sequence: usize,
        head: usize,
        rows: Range<usize>,
    ) -> Matrix<'a> {
        let row = self.heads * self.width;
        let start = (sequence * self.positions.queries + rows.start) * row + head * self.width;
        Matrix::strided(&values[start..], rows.len(), self.width, row)
    }

    /// Rows of one group of a sequence in `[B, keys, groups, H]`.
    fn of_group<'a>(&self, values: &'a [f32], sequence: usize, group: usize) -> Matrix<'a> {
        let row = self.groups * self.width;
        let start = sequence * self.keys * row + group * self.width;
        Matrix::strided(&values[start..], self.keys, self.width, row)
    }

    /// The columns of `[H, keys]` that are visible to `chunk`.
    fn first_keys<'a>(&self, values: &'a [f32], chunk: Positions) -> Matrix<'a> {
        Matrix::strided(values, self.width, chunk.keys, self.keys)
    }

    fn heads_of_group(&self) -> usize {
        self.heads / self.groups
    }

    fn scale(&self) -> f32 {
        (self.width as f32).powf(-0.5)
    }
}

/// Returns `[B, queries, heads, H]`.
pub fn forward(team: &Team, inputs: Heads<&[f32]>, sizes: Sizes) -> Vec<f32> {
    let (positions, row) = (sizes.positions, sizes.heads * sizes.width);
    let mut out = zeros(team, inputs.queries.len());
    let sequences = out.chunks_exact_mut(positions.queries * row).enumerate();
    let jobs = sequences.flat_map(|(sequence, out)| {
        let heads = MatrixMut::new(out, positions.queries, row).split_columns(sizes.width);
        heads.into_iter().enumerate().map(move |(head, out)| (sequence, head, out))
    });
    team.for_each(jobs.collect(), |(sequence, head, mut out): (usize, usize, MatrixMut<'_>)| {
        let group = head / sizes.heads_of_group();
        let keys = transposed(sizes.of_group(inputs.keys, sequence, group)); // [H, keys]
        let values = sizes.of_group(inputs.values, sequence, group).to_rows();
        let mut weights = zeros(team, ATTENTION_QUERIES.min(positions.queries) * positions.keys);
        for chunk in positions.chunks(ATTENTION_QUERIES) {
            let first = chunk.start - positions.start;
            let weights = &mut weights[..chunk.queries * chunk.keys];
            attend(
                weights,
                sizes.of_head(inputs.queries, sequence, head, first..first + chunk.queries),
                sizes.first_keys(&keys, chunk),
                chunk,
            );
            let values = Matrix::new(&values, chunk.keys, sizes.width);
            multiply(
                &mut out.rows(first, chunk.queries),
                Old::Replaced,
                Matrix::new(weights, chunk.queries, chunk.keys),
                values,
            );
        }
    });
    out
}

/// Gradients of queries, keys and values.
pub fn backward(
    team: &Team,
    inputs: Heads<&[f32]>,
    sizes: Sizes,
    d_out: &[f32],
) -> Heads<Vec<f32>> {
    let mut gradients = Heads {
        queries: zeros(team, inputs.queries.len()),
        keys: zeros(team, inputs.keys.len()),
        values: zeros(team, inputs.values.len()),
    };
    let num_queries = sizes.positions.queries;
    let (query_row, key_row) = (sizes.heads * sizes.width, sizes.groups * sizes.width);
    let sequences = gradients
        .queries
        .chunks_exact_mut(num_queries * query_row)
        .zip(gradients.keys.chunks_exact_mut(sizes.keys * key_row))
        .zip(gradients.values.chunks_exact_mut(sizes.keys * key_row))
        .enumerate();
    let jobs = sequences.flat_map(|(sequence, ((d_queries, d_keys), d_values))| {
        let d_queries = MatrixMut::new(d_queries, num_queries, query_row)
            .split_columns(sizes.heads_of_group() * sizes.width);
        let d_keys = MatrixMut::new(d_keys, sizes.keys, key_row).split_columns(sizes.width);
        let d_values = MatrixMut::new(d_values, sizes.keys, key_row).split_columns(sizes.width);
        let groups = d_queries.into_iter().zip(d_keys).zip(d_values).enumerate();
        groups.map(move |(group, ((queries, keys), values))| Job {
            sequence,
            group,
            gradients: Heads { queries, keys, values },
        })
    });
    team.for_each(jobs.collect(), |job: Job<'_>| job.run(team, sizes, inputs, d_out));
    gradients
}

/// The heads of a sequence that share keys and values, and the destinations of their gradients.
struct Job<'a> {
    sequence: usize,
    group: usize,
    gradients: Heads<MatrixMut<'a>>,
}

impl Job<'_> {
    fn run(self, team: &Team, sizes: Sizes, inputs: Heads<&[f32]>, d_out: &[f32]) {
        let Self { sequence, group, mut gradients } = self;
        let positions = sizes.positions;
        let of_group = |values| sizes.of_group(values, sequence, group);
        let (keys, values) = (of_group(inputs.keys), of_group(inputs.values));
        let (turned_keys, turned_values, keys) =
            (transposed(keys), transposed(values), keys.to_rows());
        let (mut key_sums, mut value_sums) = (zeros(team, keys.len()), zeros(team, keys.len())); // [keys, H]
        let room = ATTENTION_QUERIES.min(positions.queries) * positions.keys;
        let (mut weights, mut d_weights) = (zeros(team, room), zeros(team, room));
        let heads = gradients.queries.split_columns(sizes.width);
        for (idx, mut d_queries) in heads.into_iter().enumerate() {
            let head = group * sizes.heads_of_group() + idx;
            for chunk in positions.chunks(ATTENTION_QUERIES) {
                let first = chunk.start - positions.start;
                let (count, length) = (chunk.queries, chunk.keys);
                let (weights, d_weights) =
                    (&mut weights[..count * length], &mut d_weights[..count * length]);
                let [queries, d_out] = [inputs.queries, d_out].map(|values| {
                    sizes.of_head(values, sequence, head, first..first + count).to_rows()
                });
                let [queries, d_out] =
                    [&queries, &d_out].map(|rows| Matrix::new(rows, count, sizes.width));
                attend(weights, queries, sizes.first_keys(&turned_keys, chunk), chunk);
                let sums = &mut MatrixMut::new(&mut value_sums, sizes.keys, sizes.width);
                multiply(
                    &mut sums.rows(0, length),
                    Old::Kept,
                    Matrix::new(weights, count, length).transposed(),
                    d_out,
                );
                multiply(
                    &mut MatrixMut::new(d_weights, count, length),
                    Old::Replaced,
                    d_out,
                    sizes.first_keys(&turned_values, chunk),
                );
                slopes(weights, d_weights, length);
                let d_scores = Matrix::new(d_weights, count, length).times(sizes.scale());
                let mut d_queries = d_queries.rows(first, count);
                multiply(
                    &mut d_queries,
                    Old::Replaced,
                    d_scores,
                    Matrix::new(&keys, length, sizes.width),
                );
                for row in 0..count {
                    best!(
                        d_queries
                            .row(row)
                            .iter_mut()
                            .for_each(|value| *value = settled(*value, TINY))
                    );
                }
                let sums = &mut MatrixMut::new(&mut key_sums, sizes.keys, sizes.width);
                multiply(&mut sums.rows(0, length), Old::Kept, d_scores.transposed(), queries);
            }
        }
        for (target, sums) in [(&mut gradients.keys, key_sums), (&mut gradients.values, value_sums)]
        {
            for (row, sum) in sums.chunks_exact(sizes.width).enumerate() {
                best!(
                    target
                        .row(row)
                        .iter_mut()
                        .zip(sum)
                        .for_each(|(target, sum)| *target = settled(*sum, TINY))
                );
            }
        }
    }
}

/// Writes the attention weights of a chunk, `[queries, keys]`, 0 for future keys.
///
/// `queries`: `[queries, H]`, `keys`: `[H, keys]`.
fn attend(weights: &mut [f32], queries: Matrix<'_>, keys: Matrix<'_>, chunk: Positions) {
    let scale = (keys.rows as f32).powf(-0.5);
    multiply(
        &mut MatrixMut::new(weights, chunk.queries, chunk.keys),
        Old::Replaced,
        queries.times(scale),
        keys,
    );
    best!({
        for (idx, row) in weights.chunks_exact_mut(chunk.keys).enumerate() {
            let (past, future) = row.split_at_mut(chunk.keys - chunk.queries + idx + 1);
            softmax(past);
            for weight in past.iter_mut() {
                *weight = settled(*weight, LEAST_WEIGHT);
            }
            future.fill(0.0);
        }
    });
}

/// Converts gradients of weights to gradients of scores: `P (dP - sum of P dP)`, row by row.
fn slopes(weights: &[f32], d_weights: &mut [f32], length: usize) {
    best!({
        for (row, d_row) in weights.chunks_exact(length).zip(d_weights.chunks_exact_mut(length)) {
            let delta = sum([row, d_row], |[weight, d]| weight * d);
            for (d, weight) in d_row.iter_mut().zip(row) {
                *d = settled(weight * (*d - delta), TINY);
            }
        }
    });
}
