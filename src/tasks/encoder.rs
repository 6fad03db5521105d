//! From texts to the ids that a model is asked about, as lm-eval makes them.
//!
//! Knows a tokenizer and how much a model reads at once; never documents. Start at [`Encoder::pair`].

use crate::data::Tokenizer;
use crate::tasks::python::rstrip;
use crate::tasks::windows::rolling_windows;
use crate::tasks::{Request, Scored, TaskError};

/// Turns texts into ids for one model.
#[derive(Debug, Clone, Copy)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    add_bos: bool,
    max_length: usize,
}

impl<'a> Encoder<'a> {
    /// For a model that reads `max_length` ids at once.
    ///
    /// `add_bos` puts the begin-of-text token before everything that is encoded, as lm-eval does for a `LLaMA` since 0.4.9.2 and
    /// with `add_bos_token=True`; without it nothing is added, as before and with `add_bos_token=False`.
    ///
    /// # Errors
    /// When the tokenizer lacks the token to be added.
    pub fn new(tokenizer: &'a Tokenizer, add_bos: bool, max_length: usize) -> Result<Self, TaskError> {
        if add_bos && tokenizer.bos().is_none() {
            return Err(TaskError::NoSpecialToken { purpose: "begins a text" });
        }
        Ok(Self { tokenizer, add_bos, max_length })
    }

    /// Ids that the model reads at once.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ids of the context, and those of the continuation.
    ///
    /// White space at the end of the context counts as part of the continuation. Both are encoded together and cut after as many
    /// ids as the context has alone, even where those are others. The context is never without ids, unless the tokenizer gives
    /// it none.
    ///
    /// # Errors
    /// When the tokenizer fails, or has no token that could stand for an empty context.
    pub fn pair(&self, request: &Request<'_>) -> Result<(Vec<u32>, Vec<u32>), TaskError> {
        if request.context.is_empty() {
            let continuation = self.tokenizer.encode(&request.continuation)?;
            let prefix = self.prefix()?;
            return Ok(match continuation.split_first() {
                Some((first, rest)) if *first == prefix => (vec![prefix], rest.to_vec()),
                _ => (vec![prefix], continuation),
            });
        }
        let context = self.encode(rstrip(request.context))?;
        let mut whole = self.encode(&format!("{}{}", request.context, request.continuation))?;
        let continuation = whole.split_off(context.len().min(whole.len()));
        Ok((context, continuation))
    }

    /// The question that the model is asked; a context that is too long loses its beginning.
    ///
    /// # Errors
    /// As [`Self::pair`], and when the continuation alone is too long, or one of the two has no id. `task` and `doc_id` are named.
    pub fn scored(&self, request: &Request<'_>, task: &str, doc_id: usize) -> Result<Scored, TaskError> {
        let (context, continuation) = self.pair(request)?;
        let num_scored = continuation.len();
        if context.is_empty() || num_scored == 0 {
            let part = if num_scored == 0 { "continuation" } else { "context" };
            return Err(TaskError::NoTokens { task: task.into(), doc_id, part });
        }
        if num_scored > self.max_length {
            return Err(TaskError::ContinuationTooLong { task: task.into(), doc_id, tokens: num_scored, max_length: self.max_length });
        }
        let mut ids = [context, continuation].concat();
        ids.drain(..ids.len().saturating_sub(self.max_length + 1));
        Ok(Scored { ids, num_scored })
    }

    /// The questions that together predict all of `text`.
    ///
    /// # Errors
    /// When the tokenizer fails, or has no token that could stand before the text.
    pub fn rolling(&self, text: &str) -> Result<Vec<Scored>, TaskError> {
        // With `add_bos` the text begins with the token that stands before it anyway, and that one is predicted, too.
        Ok(rolling_windows(&self.encode(text)?, self.prefix()?, self.max_length))
    }

    /// The ids of a page of the paper's evaluation: with the begin-of-text token, if there is one.
    pub(super) fn page(&self, text: &str) -> Result<Vec<u32>, TaskError> {
        let ids = self.tokenizer.encode(text)?;
        Ok(self.tokenizer.bos().into_iter().chain(ids).collect())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TaskError> {
        let ids = self.tokenizer.encode(text)?;
        // None is added to a text that spells it out at its beginning.
        let bos = self.tokenizer.bos().filter(|bos| self.add_bos && ids.first() != Some(bos));
        Ok(bos.into_iter().chain(ids).collect())
    }

    /// What stands before a text of which every token is predicted.
    fn prefix(&self) -> Result<u32, TaskError> {
        self.tokenizer.bos().or(self.tokenizer.eos()).ok_or(TaskError::NoSpecialToken { purpose: "begins or ends a text" })
    }
}
