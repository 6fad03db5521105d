//! Rows in blocks, blocks on threads.

use rayon::prelude::*;

/// Values of a block, about: so much that starting a thread on it pays, so little that it stays in the fastest cache.
const BLOCK_VALUES: usize = 8192;

/// Rows of a block, for rows of `width` values; depends on nothing else.
pub(super) fn block_rows(width: usize) -> usize {
    (BLOCK_VALUES / width.max(1)).max(1)
}

/// Calls `work` for each of `blocks`, on all threads; a single one is done here, since waking a thread costs more.
pub(super) fn for_each<T: Send>(mut blocks: Vec<T>, work: impl Fn(T) + Sync + Send) {
    if blocks.len() == 1 {
        blocks.drain(..).for_each(work);
    } else {
        blocks.into_par_iter().for_each(work);
    }
}
