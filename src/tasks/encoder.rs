//! Encodes texts into the token ids to score, as lm-eval does.
//!
//! Needs a tokenizer and the context length of a model. Start at [`TaskEncoder::pair`].

use crate::data::Tokenizer;
use crate::tasks::python::rstrip;
use crate::tasks::windows::rolling_windows;
use crate::tasks::{ScoreRequest, Scored, TaskError};

/// Encodes texts for one model.
#[derive(Debug, Clone, Copy)]
pub struct TaskEncoder<'a> {
    tokenizer: &'a Tokenizer,
    add_bos: bool,
    max_length: usize,
}

impl<'a> TaskEncoder<'a> {
    /// For a model with a context length of `max_length`.
    ///
    /// `add_bos` prepends the BOS token to everything that is encoded, as lm-eval has done for a
    /// `LLaMA` since 0.4.9.2 and with `add_bos_token=True`; without it nothing is added, as
    /// before and with `add_bos_token=False`.
    ///
    /// # Errors
    /// When the tokenizer has no BOS token to add.
    pub fn new(
        tokenizer: &'a Tokenizer,
        add_bos: bool,
        max_length: usize,
    ) -> Result<Self, TaskError> {
        if add_bos && tokenizer.bos().is_none() {
            return Err(TaskError::NoSpecialToken { purpose: "begins a text" });
        }
        Ok(Self { tokenizer, add_bos, max_length })
    }

    /// Context length.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ids of the context and of the continuation.
    ///
    /// White space at the end of the context counts as part of the continuation. Both are encoded
    /// together and split after as many ids as the context has when encoded alone, even where
    /// the ids differ. The context is never empty, unless the tokenizer encodes it to nothing.
    ///
    /// # Errors
    /// When the tokenizer fails, or has no token to use as an empty context.
    pub fn pair(&self, request: &ScoreRequest<'_>) -> Result<(Vec<u32>, Vec<u32>), TaskError> {
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

    /// The sequence to score; a context that is too long is truncated on the left.
    ///
    /// # Errors
    /// As [`Self::pair`], and when the continuation alone is too long, or context or continuation
    /// has no ids. The error names `task` and `doc_id`.
    pub fn scored(
        &self,
        request: &ScoreRequest<'_>,
        task: &str,
        doc_id: usize,
    ) -> Result<Scored, TaskError> {
        let (context, continuation) = self.pair(request)?;
        let num_scored = continuation.len();
        if context.is_empty() || num_scored == 0 {
            let part = if num_scored == 0 { "continuation" } else { "context" };
            return Err(TaskError::NoTokens { task: task.into(), doc_id, part });
        }
        if num_scored > self.max_length {
            return Err(TaskError::ContinuationTooLong {
                task: task.into(),
                doc_id,
                tokens: num_scored,
                max_length: self.max_length,
            });
        }
        let mut ids = [context, continuation].concat();
        ids.drain(..ids.len().saturating_sub(self.max_length + 1));
        Ok(Scored { ids, num_scored })
    }

    /// The sequences that together score all of `text`.
    ///
    /// # Errors
    /// When the tokenizer fails, or has no token to put before the text.
    pub fn rolling(&self, text: &str) -> Result<Vec<Scored>, TaskError> {
        // With `add_bos` the text already begins with the token that precedes it, and that token is
        // scored, too.
        Ok(rolling_windows(&self.encode(text)?, self.prefix()?, self.max_length))
    }

    /// The ids of a page of the paper's evaluation: with the BOS token, if there is one.
    pub(super) fn page(&self, text: &str) -> Result<Vec<u32>, TaskError> {
        let ids = self.tokenizer.encode(text)?;
        Ok(self.tokenizer.bos().into_iter().chain(ids).collect())
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, TaskError> {
        let ids = self.tokenizer.encode(text)?;
        // None is added to a text that starts with it literally.
        let bos = self.tokenizer.bos().filter(|bos| self.add_bos && ids.first() != Some(bos));
        Ok(bos.into_iter().chain(ids).collect())
    }

    /// The token before a text of which every token is scored.
    fn prefix(&self) -> Result<u32, TaskError> {
        self.tokenizer
            .bos()
            .or(self.tokenizer.eos())
            .ok_or(TaskError::NoSpecialToken { purpose: "begins or ends a text" })
    }
}
