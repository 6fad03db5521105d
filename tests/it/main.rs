//! The one integration binary; fixtures, golden numbers and snapshots stand beside it.

#[cfg(feature = "engine")]
mod golden;
