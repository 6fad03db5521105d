//! Text after a prompt, token by token (K = 1): keys and values of what was read are kept, so each token costs one row.
//!
//! Knows ids and logits; never text, files or terminals. Start at [`Generator::generate`].

mod cache;
mod generator;
mod sampling;

pub use generator::{Continuation, GenerationRules, Generator, Heard, Verdict};
pub use sampling::Sampling;
