//! Rows in blocks, blocks on threads.

use std::sync::{Mutex, PoisonError};

use super::team::share;

/// Approximate number of values per block: large enough to be worth handing to a thread, small
/// enough for the L1 cache.
const BLOCK_VALUES: usize = 8192;

/// Rows per block, for rows of `width` values; depends on nothing else.
pub(super) fn block_rows(width: usize) -> usize {
    (BLOCK_VALUES / width.max(1)).max(1)
}

/// Calls `work` for each of `blocks`, on all threads.
pub(super) fn for_each<T: Send>(blocks: Vec<T>, work: impl Fn(T) + Sync) {
    let blocks: Vec<Mutex<Option<T>>> =
        blocks.into_iter().map(|block| Mutex::new(Some(block))).collect();
    share(blocks.len(), |number| {
        let block = blocks[number].lock().unwrap_or_else(PoisonError::into_inner).take();
        work(block.expect("each number comes once"));
    });
}
