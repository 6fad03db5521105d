//! The one integration binary; fixtures, golden numbers and snapshots stand beside it.

mod architecture;
mod config;
#[cfg(feature = "engine")]
mod golden;
