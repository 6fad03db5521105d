//! Causal attention with grouped key and value heads, in chunks of queries.
//!
//! ```text
//! S = scale Q K^T, a future key's entry -infinity        P = softmax(S)        O = P V
//!
//! dV = P^T dO        dP = dO V^T        dS = P (dP - delta), delta = sum over keys of P dP
//! dQ = scale dS K    dK = scale dS^T Q
//! ```
//!
//! A chunk's P, `[B, heads, chunk, keys]`, is dropped after use and recomputed from Q and K in the
//! backward pass: nothing that grows with the square of the sequence length is kept, and most of
//! the future half of S is not computed. Query heads that share a key head are rows of one product,
//! so keys and values are never repeated.

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor};

use crate::engine::compute::{Compute, Path};
use crate::engine::kernels::attention::{self as kernel, Sizes};
use crate::engine::ops::cpu::{Floats, tensor};
use crate::engine::ops::format::{to_type, wide};
use crate::engine::positions::Positions;
use crate::plan::ATTENTION_QUERIES;

/// Maximum number of scores per chunk: 128 MB in f32, which also keeps a buffer within what every
/// GPU can bind.
const MOST_SCORES: usize = 1 << 25;
/// Maximum number of queries per chunk.
const MOST_QUERIES: usize = 512;

/// Queries, keys and values, which are also what the backward pass needs, or their gradients.
pub type Heads = kernel::Heads<Tensor<4>>;

/// `queries`: `[B, queries, heads, H]`, `keys` and `values`: `[B, keys, groups, H]`, `heads` a
/// multiple of `groups`. Returns `[B, queries, heads, H]`.
pub fn forward(compute: &Compute, heads: &Heads, positions: Positions) -> Tensor<4> {
    match compute.path(&heads.queries) {
        Path::Cpu(team) => {
            let values = heads.each_ref().map(Floats::of);
            let out = kernel::forward(team, slices(&values), sizes(heads, positions));
            tensor(out, heads.queries.dims())
        }
        Path::Composed => composed(heads, positions),
    }
}

/// `d_out`: `[B, queries, heads, H]`.
pub fn backward(compute: &Compute, heads: Heads, positions: Positions, d_out: &Tensor<4>) -> Heads {
    match compute.path(&heads.queries) {
        Path::Cpu(team) => {
            let (values, sizes) = (heads.each_ref().map(Floats::of), sizes(&heads, positions));
            let found = kernel::backward(team, slices(&values), sizes, &Floats::of(d_out));
            let dims = heads.keys.dims();
            Heads {
                queries: tensor(found.queries, heads.queries.dims()),
                keys: tensor(found.keys, dims),
                values: tensor(found.values, dims),
            }
        }
        Path::Composed => backward_composed(heads, positions, d_out),
    }
}

fn slices(heads: &kernel::Heads<Floats>) -> kernel::Heads<&[f32]> {
    heads.each_ref().map(|values| &**values)
}

fn sizes(heads: &Heads, positions: Positions) -> Sizes {
    let ([_, _, num_heads, width], [_, keys, groups, _]) =
        (heads.queries.dims(), heads.keys.dims());
    Sizes { heads: num_heads, groups, width, positions, keys }
}

fn composed(Heads { queries, keys, values }: &Heads, positions: Positions) -> Tensor<4> {
    if queries.dtype() == DType::BF16 && positions == Positions::of_sequence(positions.queries) {
        return fused(queries, keys, values);
    }
    let groups = keys.dims()[2];
    let mut outs = Vec::new();
    for chunk in positions.chunks(chunk_queries(queries, positions)) {
        let first = chunk.start - positions.start;
        let rows = group_rows(queries.clone().narrow(1, first, chunk.queries), groups);
        let weights = weights(rows, head_major(keys, chunk.keys), chunk);
        let mixed = to_type(weights, values.dtype()).matmul(head_major(values, chunk.keys)); // [B, groups, rows, H]
        outs.push(ungroup_rows(mixed, chunk.queries));
    }
    Tensor::cat(outs, 1) // [B, queries, heads, H]
}

fn backward_composed(
    Heads { queries, keys, values }: Heads,
    positions: Positions,
    d_out: &Tensor<4>,
) -> Heads {
    let ([_, _, groups, head_dim], dtype) = (keys.dims(), queries.dtype());
    let (mut d_keys, mut d_values) = (SumOverChunks::new(&keys), SumOverChunks::new(&values));
    let mut d_queries = Vec::new();
    // From the last chunk to the first, so that the gradients of fewer and fewer keys are
    // incomplete.
    for chunk in positions.chunks(chunk_queries(&queries, positions)).rev() {
        let rows_of = |tensor: &Tensor<4>| {
            group_rows(
                tensor.clone().narrow(1, chunk.start - positions.start, chunk.queries),
                groups,
            )
        };
        let (queries, d_mixed) = (rows_of(&queries), rows_of(d_out)); // [B, groups, rows, H]
        let (keys, values) = (head_major(&keys, chunk.keys), head_major(&values, chunk.keys)); // [B, groups, keys, H]
        let weights = weights(queries.clone(), keys.clone(), chunk); // [B, groups, rows, keys]
        d_values = d_values.add(
            wide(to_type(weights.clone(), dtype).transpose().matmul(d_mixed.clone())),
            chunk.start,
        );
        let d_weights = wide(d_mixed.matmul(values.transpose())); // [B, groups, rows, keys]
        let delta = (weights.clone() * d_weights.clone()).sum_dim(3); // [B, groups, rows, 1]
        let d_scores = ((d_weights - delta) * weights).mul_scalar(scale(head_dim));
        let d_scores = to_type(d_scores, dtype); // times the scale, so that both products below are complete
        d_keys = d_keys.add(wide(d_scores.clone().transpose().matmul(queries)), chunk.start);
        d_queries.push(ungroup_rows(d_scores.matmul(keys), chunk.queries));
    }
    d_queries.reverse();
    Heads {
        queries: Tensor::cat(d_queries, 1),
        keys: to_type(d_keys.finish(), dtype),
        values: to_type(d_values.finish(), dtype),
    }
}

/// Factor of the scores of heads of width `head_dim`.
fn scale(head_dim: usize) -> f64 {
    (head_dim as f64).powf(-0.5)
}

/// Queries per chunk: as many as keep its scores within [`MOST_SCORES`], since a GPU prefers few
/// large products.
fn chunk_queries(queries: &Tensor<4>, positions: Positions) -> usize {
    let [b, _, heads, _] = queries.dims();
    (MOST_SCORES / (b * heads * positions.keys).max(1)).clamp(ATTENTION_QUERIES, MOST_QUERIES)
        / ATTENTION_QUERIES
        * ATTENTION_QUERIES
}

/// Attention over whole sequences as one operation of Burn, which on a GPU uses tensor cores and
/// keeps no scores. Called without a mask and with its default scale: anything else makes it fall
/// back to computing the scores of all queries at once (burn-cubecl 0.22.1). Only for 16 bits,
/// since it always multiplies in 16 bits.
fn fused(queries: &Tensor<4>, keys: &Tensor<4>, values: &Tensor<4>) -> Tensor<4> {
    let [b, t, heads, head_dim] = queries.dims();
    let groups = keys.dims()[2];
    // It needs as many key heads as query heads.
    let repeated = |tensor: &Tensor<4>| {
        let tensor = tensor.clone().swap_dims(1, 2); // [B, groups, T, H]
        if heads == groups {
            return tensor;
        }
        tensor
            .unsqueeze_dim::<5>(2)
            .expand([b, groups, heads / groups, t, head_dim])
            .reshape([b, heads, t, head_dim])
    };
    let options = AttentionModuleOptions { scale: None, softcap: None, is_causal: true };
    attention(
        queries.clone().swap_dims(1, 2),
        repeated(keys),
        repeated(values),
        None,
        None,
        options,
    )
    .swap_dims(1, 2)
}

/// Attention weights of one chunk, in f32 or wider. `rows`: `[B, groups, rows, H]`, `keys`: `[B,
/// groups, keys, H]`. Returns `[B, groups, rows, keys]`.
fn weights(rows: Tensor<4>, keys: Tensor<4>, chunk: Positions) -> Tensor<4> {
    let scale = scale(keys.dims()[3]);
    let scores = wide(rows.matmul(keys.transpose())).mul_scalar(scale);
    softmax(hide_future(scores, chunk), 3)
}

/// Sets the scores of keys after their query to -infinity: some of the last keys, as many as there
/// are queries.
fn hide_future(scores: Tensor<4>, chunk: Positions) -> Tensor<4> {
    let (n, first) = (chunk.queries, chunk.keys - chunk.queries);
    if n == 1 {
        return scores;
    }
    let [b, groups, rows, keys] = scores.dims();
    let future = Tensor::<2, Bool>::tril_mask([n, n], 0, &scores.device())
        .unsqueeze::<4>()
        .expand([b, groups * rows / n, n, n]);
    let scores = scores.reshape([b, groups * rows / n, n, keys]); // [B, heads, queries, keys]
    let scores = if first == 0 {
        scores.mask_fill(future, f32::NEG_INFINITY)
    } else {
        let last = scores.clone().narrow(3, first, n).mask_fill(future, f32::NEG_INFINITY);
        scores.slice_assign([0..b, 0..groups * rows / n, 0..n, first..keys], last)
    };
    scores.reshape([b, groups, rows, keys])
}

/// The first `count` positions in head-major order: `[B, T, groups, H]` to `[B, groups, count, H]`.
fn head_major(tensor: &Tensor<4>, count: usize) -> Tensor<4> {
    tensor.clone().narrow(1, 0, count).swap_dims(1, 2)
}

/// The heads of a group, one below the other: `[B, queries, heads, H]` to `[B, groups, heads /
/// groups * queries, H]`.
fn group_rows(tensor: Tensor<4>, groups: usize) -> Tensor<4> {
    let [b, queries, heads, width] = tensor.dims();
    let heads_first = tensor.swap_dims(1, 2); // [B, heads, queries, H]
    if heads == groups {
        heads_first
    } else {
        heads_first.reshape([b, groups, heads / groups * queries, width])
    }
}

/// Undoes [`group_rows`]: `[B, groups, rows, H]` to `[B, queries, heads, H]`.
fn ungroup_rows(tensor: Tensor<4>, queries: usize) -> Tensor<4> {
    let [b, groups, rows, width] = tensor.dims();
    tensor.reshape([b, groups * rows / queries, queries, width]).swap_dims(1, 2)
}

/// A sum over chunks whose keys begin at 0 and become fewer with each chunk. Keys that no further
/// chunk has move to their final place.
struct SumOverChunks {
    /// Complete from some position on, `[B, T, groups, H]`.
    finished: Tensor<4>,
    /// Sum of the others so far, `[B, groups, keys, H]`.
    open: Option<Tensor<4>>,
}

impl SumOverChunks {
    fn new(like: &Tensor<4>) -> Self {
        Self { finished: wide(like.zeros_like()), open: None }
    }

    /// Adds a chunk's `part`, `[B, groups, keys, H]`; the next chunk has `remaining` keys.
    fn add(self, part: Tensor<4>, remaining: usize) -> Self {
        let sum = match self.open {
            Some(open) => part + open,
            None => part,
        };
        let [_, _, keys, _] = sum.dims();
        let finished =
            place(self.finished, remaining, sum.clone().narrow(2, remaining, keys - remaining));
        Self { finished, open: (remaining > 0).then(|| sum.narrow(2, 0, remaining)) }
    }

    /// The sum, `[B, T, groups, H]`.
    fn finish(self) -> Tensor<4> {
        match self.open {
            Some(open) => place(self.finished, 0, open),
            None => self.finished,
        }
    }
}

/// Writes `part`, `[B, groups, keys, H]`, into `whole`, `[B, T, groups, H]`, from position `start`
/// on.
fn place(whole: Tensor<4>, start: usize, part: Tensor<4>) -> Tensor<4> {
    let [b, groups, keys, width] = part.dims();
    whole.slice_assign([0..b, start..start + keys, 0..groups, 0..width], part.swap_dims(1, 2))
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::*;
    use crate::engine::ops::testing::{assert_same, assert_same_at, dtypes, noise, recorded};

    /// The plain expression: all keys at once, keys and values repeated for each query head.
    fn plain(queries: Tensor<4>, keys: Tensor<4>, values: Tensor<4>, start: usize) -> Tensor<4> {
        let [b, num_queries, heads, width] = queries.dims();
        let [_, num_keys, groups, _] = keys.dims();
        let repeat = |tensor: Tensor<4>| {
            let tensor =
                tensor.unsqueeze_dim::<5>(3).expand([b, num_keys, groups, heads / groups, width]);
            tensor.reshape([b, num_keys, heads, width]).swap_dims(1, 2)
        };
        let scores = queries
            .swap_dims(1, 2)
            .matmul(repeat(keys).transpose())
            .mul_scalar((width as f64).powf(-0.5));
        let future =
            Tensor::<2, Bool>::tril_mask([num_queries, num_keys], start as i64, &scores.device());
        let future = future.unsqueeze::<4>().expand([b, heads, num_queries, num_keys]);
        softmax(scores.mask_fill(future, f32::NEG_INFINITY), 3)
            .matmul(repeat(values))
            .swap_dims(1, 2)
    }

    fn check(dtype: DType, heads: usize, groups: usize, positions: Positions) {
        let width = 4;
        let (compute, heads) = (
            Compute::cpu(),
            Heads {
                queries: noise([2, positions.queries, heads, width], 1, dtype) * 3.0,
                keys: noise([2, positions.keys, groups, width], 2, dtype) * 3.0,
                values: noise([2, positions.keys, groups, width], 3, dtype),
            },
        );
        let d_out = noise(heads.queries.dims(), 4, dtype);
        let out = forward(&compute, &heads, positions);
        let found = backward(&compute, heads.clone(), positions, &d_out);

        let Heads { queries, keys, values } = heads.each_ref().map(recorded);
        let expected = plain(queries.clone(), keys.clone(), values.clone(), positions.start);
        let gradients = (expected.clone() * Tensor::from_inner(d_out)).sum().backward();
        assert_same("out", out, expected.inner());
        // With a single key these are differences of numbers near 1 that cancel out.
        assert_same_at("d_queries", 1.0, found.queries, queries.grad(&gradients).unwrap());
        assert_same_at("d_keys", 1.0, found.keys, keys.grad(&gradients).unwrap());
        assert_same("d_values", found.values, values.grad(&gradients).unwrap());
    }

    #[test]
    fn gradients_are_those_that_burn_derives() {
        for dtype in dtypes() {
            for (heads, groups) in [(3, 3), (4, 2), (3, 1)] {
                // One query, less than a chunk, whole chunks, a short last chunk; then queries
                // after a cache, with unused keys at the end.
                for length in [1, 5, MOST_QUERIES, MOST_QUERIES + 3] {
                    check(dtype, heads, groups, Positions::of_sequence(length));
                }
                check(dtype, heads, groups, Positions { start: 7, queries: 1, keys: 8 });
                check(
                    dtype,
                    heads,
                    groups,
                    Positions {
                        start: 9,
                        queries: ATTENTION_QUERIES + 2,
                        keys: ATTENTION_QUERIES + 20,
                    },
                );
            }
        }
    }

    #[test]
    fn chunks_are_as_large_as_memory_allows() {
        let of = |b, heads, keys| {
            chunk_queries(
                &Tensor::zeros([b, 1, heads, 1], &burn::tensor::Device::flex()),
                Positions::of_sequence(keys),
            )
        };
        assert_eq!(
            [of(1, 2, 16), of(8, 16, 2048), of(2, 16, 2048), of(64, 64, 8192)],
            [512, 128, 512, 64]
        );
    }

    #[test]
    fn a_query_after_a_cache_gets_what_it_gets_in_its_sequence() {
        let dtype = DType::F32;
        let (compute, heads) = (
            Compute::cpu(),
            Heads {
                queries: noise([1, 9, 4, 4], 1, dtype),
                keys: noise([1, 9, 2, 4], 2, dtype),
                values: noise([1, 9, 2, 4], 3, dtype),
            },
        );
        let whole = forward(&compute, &heads, Positions::of_sequence(9));
        for start in 0..9 {
            let positions = Positions { start, queries: 1, keys: start + 1 };
            let first = |tensor: &Tensor<4>| tensor.clone().narrow(1, 0, start + 1);
            let heads = Heads {
                queries: heads.queries.clone().narrow(1, start, 1),
                keys: first(&heads.keys),
                values: first(&heads.values),
            };
            let one = forward(&compute, &heads, positions);
            assert_same("out", one, whole.clone().narrow(1, start, 1));
        }
    }
}
