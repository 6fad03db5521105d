//! Reads sequences in the order of the run.

use crate::data::{BlockOrder, DataError, TokenStream};

/// A stream together with the order in which it is read.
#[derive(Debug, Clone)]
pub struct Loader {
    /// Token stream to read.
    pub stream: TokenStream,
    /// Order of its blocks.
    pub order: BlockOrder,
}

impl Loader {
    /// Combines a stream with the order of its blocks.
    #[must_use]
    pub fn new(stream: TokenStream, order: BlockOrder) -> Self {
        Self { stream, order }
    }

    /// Fills `out` with the sequence at position `position_tokens` of the run.
    ///
    /// # Errors
    /// As [`TokenStream::read`].
    ///
    /// # Panics
    /// If the sequence would leave its block: the plan cuts blocks into whole sequences.
    pub fn read(&self, position_tokens: u64, out: &mut [u32]) -> Result<(), DataError> {
        self.stream.read(self.place(position_tokens, out.len() as u64), out)
    }

    /// Where in the stream the sequence of `tokens` tokens at `position_tokens` of the run begins.
    ///
    /// # Panics
    /// As [`Loader::read`].
    #[must_use]
    pub fn place(&self, position_tokens: u64, tokens: u64) -> u64 {
        let place = self.order.place(position_tokens);
        let block_tokens = self.order.block_tokens();
        assert!(
            place.part_offset_tokens + tokens <= block_tokens,
            "a sequence of {tokens} tokens at {place:?} leaves its block"
        );
        place.block * block_tokens + place.part_offset_tokens
    }
}
