//! Evaluation tasks: their documents, prompts, pairs of token ids, and what becomes of the scores.
//!
//! Knows text, ids and log-likelihoods; never a model or a tensor. Start at [`Scored`].

mod scored;

pub use scored::Scored;
