//! Key-value cache: keys and values of the tokens read so far, in every layer.

use burn::tensor::Tensor;

use crate::engine::compute::Compute;
use crate::engine::ops::attention::{self, Heads};
use crate::engine::positions::Positions;

/// The cache of one sequence; its tokens are at the positions `0..length`.
#[derive(Debug)]
pub(super) struct KeyValueCache {
    /// Per layer, once it has tokens: keys and values, `[1, capacity, groups, H]`.
    layers: Vec<Option<(Tensor<4>, Tensor<4>)>>,
    length: usize,
    capacity: usize,
}

impl KeyValueCache {
    /// An empty cache for up to `capacity` tokens.
    pub(super) fn new(num_layers: usize, capacity: usize) -> Self {
        Self { layers: vec![None; num_layers], length: 0, capacity }
    }

    /// Number of cached tokens.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The positions of the next `count` tokens.
    pub(super) fn next_positions(&self, count: usize) -> Positions {
        assert!(
            self.length + count <= self.capacity,
            "the caller makes room before a token is read"
        );
        Positions { start: self.length, queries: count, keys: self.length + count }
    }

    /// Attention of new tokens, `[1, n, heads, H]`, to all cached tokens and to themselves; their
    /// keys and values are added.
    pub(super) fn mix(&mut self, compute: &Compute, layer_idx: usize, heads: Heads) -> Tensor<4> {
        let Heads { queries, keys, values } = heads;
        let positions = self.next_positions(queries.dims()[1]);
        let (old_keys, old_values) = self.layers[layer_idx]
            .take()
            .unwrap_or_else(|| (self.empty(&keys), self.empty(&values)));
        let keys = place(old_keys, positions, keys);
        let values = place(old_values, positions, values);
        let heads = Heads { queries, keys, values };
        let mixed = attention::forward(compute, &heads, positions);
        self.layers[layer_idx] = Some((heads.keys, heads.values));
        mixed
    }

    /// Counts `count` tokens as cached, after the last layer.
    pub(super) fn advance(&mut self, count: usize) {
        self.length += count;
    }

    /// A buffer like `part` for the whole capacity.
    fn empty(&self, part: &Tensor<4>) -> Tensor<4> {
        let [_, _, groups, width] = part.dims();
        Tensor::zeros([1, self.capacity, groups, width], &part.device())
    }
}

/// Writes `part` at its positions; in place, since `whole` is not shared.
fn place(whole: Tensor<4>, positions: Positions, part: Tensor<4>) -> Tensor<4> {
    let [_, _, groups, width] = part.dims();
    whole.slice_assign([0..1, positions.start..positions.keys, 0..groups, 0..width], part)
}
