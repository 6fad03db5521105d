//! Generates English-like stories whose true entropy rate is known exactly.
//!
//! `assets/grammar.txt` defines the stories and the probability of each choice; [`Grammar`] reads
//! it, generates story number `n` of a seed, and computes the loss of a perfect predictor. Every
//! text has exactly one derivation (a test proves it), so the entropy of the text is that of the
//! choices. Start at [`Grammar::story`].

mod measure;
mod story;
mod syntax;

pub use measure::Expectation;
pub use story::Story;
pub use syntax::{Grammar, GrammarError};

#[cfg(test)]
mod tests;
