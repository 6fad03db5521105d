//! Rows in blocks.

use std::mem::MaybeUninit;

use super::team::Team;

/// Approximate number of values per block: large enough to be worth handing to a thread, small
/// enough for the L1 cache.
const BLOCK_VALUES: usize = 8192;

/// Rows per block, for rows of `width` values; depends on nothing else.
pub(super) fn block_rows(width: usize) -> usize {
    (BLOCK_VALUES / width.max(1)).max(1)
}

/// A vector of `length` zeros; written by all threads, so that each finds its part in its cache.
#[expect(unsafe_code, reason = "the standard library zeroes memory on one thread only")]
pub(super) fn zeros(team: &Team, length: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    let blocks = values.spare_capacity_mut()[..length].chunks_mut(BLOCK_VALUES).collect();
    team.for_each(blocks, |block: &mut [MaybeUninit<f32>]| block.fill(MaybeUninit::new(0.0)));
    // SAFETY: the blocks cover the first `length` values, which are within the capacity, and each
    // was filled.
    unsafe { values.set_len(length) };
    values
}
