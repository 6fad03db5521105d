//! The order in which the blocks of a stream are read.
//!
//! A pure function of seed, epoch and index: any position is found in constant time, nothing is
//! stored. Start at [`BlockOrder::place`].

use crate::data::random::{GOLDEN, mix};

/// Rounds of the Feistel network; four make a pseudorandom permutation from good round functions
/// (Luby and Rackoff, 1988), two more compensate for the small domains here.
const ROUNDS: u64 = 6;

/// The order in which the blocks of a stream are read, epoch after epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockOrder {
    num_blocks: u64,
    block_tokens: u64,
    seed: u64,
    shuffle: bool,
}

/// Position in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPlace {
    /// Completed passes over the stream.
    pub epoch: u64,
    /// Block of the stream.
    pub block: u64,
    /// Offset in the block, in tokens.
    pub part_offset_tokens: u64,
}

impl BlockOrder {
    /// Orders the whole blocks of a stream of `stream_tokens`; a shorter remainder is never read.
    ///
    /// # Panics
    /// If the stream does not hold a single block, which preparing it rules out.
    #[must_use]
    pub fn new(stream_tokens: u64, block_tokens: u64, seed: u64, shuffle: bool) -> Self {
        assert!(
            block_tokens > 0 && stream_tokens >= block_tokens,
            "a stream of {stream_tokens} tokens has no block of {block_tokens}"
        );
        Self { num_blocks: stream_tokens / block_tokens, block_tokens, seed, shuffle }
    }

    /// Blocks per pass over the stream.
    #[must_use]
    pub fn blocks_per_epoch(&self) -> u64 {
        self.num_blocks
    }

    /// Tokens of a block.
    #[must_use]
    pub fn block_tokens(&self) -> u64 {
        self.block_tokens
    }

    /// Location of the token at position `position_tokens` of the run.
    #[must_use]
    pub fn place(&self, position_tokens: u64) -> BlockPlace {
        let turn = position_tokens / self.block_tokens;
        let (epoch, index) = (turn / self.num_blocks, turn % self.num_blocks);
        let block = if self.shuffle { self.permuted(epoch, index) } else { index };
        BlockPlace { epoch, block, part_offset_tokens: position_tokens % self.block_tokens }
    }

    /// Follows the cycle of a permutation of a power of four until it returns to a valid block: at
    /// most four steps on average, because the power is less than four times the number of
    /// blocks.
    fn permuted(&self, epoch: u64, index: u64) -> u64 {
        let half_bits = (u64::BITS - (self.num_blocks - 1).leading_zeros()).div_ceil(2).max(1);
        let key = mix(mix(self.seed.wrapping_add(GOLDEN)) ^ epoch.wrapping_mul(GOLDEN));
        let mut value = feistel(index, half_bits, key);
        while value >= self.num_blocks {
            value = feistel(value, half_bits, key);
        }
        value
    }
}

/// A permutation of `0..4^half_bits`.
fn feistel(value: u64, half_bits: u32, key: u64) -> u64 {
    let mask = (1 << half_bits) - 1;
    let (mut left, mut right) = (value >> half_bits, value & mask);
    for round in 1..=ROUNDS {
        let scrambled = mix(key.wrapping_add(round.wrapping_mul(GOLDEN)) ^ mix(right));
        (left, right) = (right, left ^ (scrambled & mask));
    }
    left << half_bits | right
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(order: &BlockOrder, epoch: u64) -> Vec<u64> {
        let first = epoch * order.blocks_per_epoch();
        (0..order.blocks_per_epoch())
            .map(|index| order.place((first + index) * order.block_tokens()).block)
            .collect()
    }

    fn is_permutation(blocks: &[u64]) -> bool {
        let mut sorted = blocks.to_vec();
        sorted.sort_unstable();
        sorted.iter().copied().eq(0..blocks.len() as u64)
    }

    #[test]
    fn every_small_epoch_reads_every_block_once() {
        for num_blocks in (1..=300).chain([1023, 1024, 1025, 4095, 4096, 4097, 65_537]) {
            let order = BlockOrder::new(num_blocks * 7 + 6, 7, 11, true);
            assert_eq!(order.blocks_per_epoch(), num_blocks);
            assert!(is_permutation(&epoch(&order, 0)), "{num_blocks} blocks");
        }
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let order = BlockOrder::new(1000, 1, 1, true);
        let other = BlockOrder::new(1000, 1, 2, true);
        assert_ne!(epoch(&order, 0), epoch(&order, 1));
        assert_ne!(epoch(&order, 0), epoch(&other, 0));
        assert_eq!(epoch(&order, 1), epoch(&order.clone(), 1));
        let in_place = epoch(&order, 0)
            .iter()
            .enumerate()
            .filter(|(index, block)| *index as u64 == **block)
            .count();
        assert!(
            in_place < 10,
            "a random permutation has about one fixed point, this one has {in_place}"
        );
    }

    #[test]
    fn a_shuffle_has_no_preferred_place() {
        // Chi-square over where block 0 of 16 lands in 16,000 epochs: mean 15, standard deviation
        // sqrt(30).
        let order = BlockOrder::new(16, 1, 3, true);
        let mut landed = [0.0_f64; 16];
        for epoch in 0..16_000 {
            landed[order.place(epoch * 16).block as usize] += 1.0;
        }
        let chi_square: f64 = landed.iter().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 15.0 + 5.0 * 30.0_f64.sqrt(), "{chi_square}");
    }

    #[test]
    fn without_shuffling_the_text_is_read_as_it_stands() {
        let order = BlockOrder::new(50, 10, 1, false);
        assert_eq!(epoch(&order, 0), [0, 1, 2, 3, 4]);
        assert_eq!(order.place(50 + 23), BlockPlace { epoch: 1, block: 2, part_offset_tokens: 3 });
    }

    #[test]
    fn the_last_position_of_the_largest_stream_is_found() {
        let order = BlockOrder::new(u64::MAX, 1, 1, true);
        assert!(order.place(u64::MAX).block < order.blocks_per_epoch());
    }

    proptest! {
        #[test]
        fn any_epoch_of_any_size_reads_every_block_once(num_blocks in 1_u64..3000, seed: u64, at in 0_u64..1000) {
            let order = BlockOrder::new(num_blocks * 3, 3, seed, true);
            prop_assert!(is_permutation(&epoch(&order, at)));
        }

        #[test]
        fn all_cuts_of_a_block_agree_on_its_place(position in 0_u64..1_000_000, seed: u64) {
            let order = BlockOrder::new(12_345, 12, seed, true);
            let start = order.place(position / 12 * 12);
            let inside = order.place(position);
            prop_assert_eq!((inside.epoch, inside.block), (start.epoch, start.block));
            prop_assert_eq!(inside.part_offset_tokens, position % 12);
        }
    }
}
