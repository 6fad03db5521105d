//! The engine's door and the client's key to it: socket, protocol, signals.
//!
//! Knows frames of plain data; never tensors or widgets. Start at [`Feed`] for what a client hears.

mod link;

pub use link::{EngineLink, Feed};
