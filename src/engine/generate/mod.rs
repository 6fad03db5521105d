//! Generates text token by token (K = 1) with a key-value cache, so that each token costs one row.
//!
//! Start at [`Generator::generate`].

mod cache;
mod generator;
mod sampling;

pub use generator::{Continuation, GenerationRules, Generator, Heard, Verdict};
pub use sampling::Sampling;
