//! Encodes pieces of text into a file of token ids, on all cores, in the order of the text.

use rayon::prelude::*;

use crate::data::stream::{StreamOutline, TokenWidth, TokenWriter};
use crate::data::tokenizer::SpecialTokens;
use crate::data::{DataError, Tokenizer};

/// Text that is encoded at once: enough for all cores, little against the memory of any machine.
const BATCH_BYTES: usize = 4 << 20;
/// Short pieces that are encoded at once, so that a batch never takes long.
const BATCH_PIECES: usize = 1024;

/// Encodes pieces of text and writes their tokens.
pub(crate) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    special_tokens: SpecialTokens,
    writer: TokenWriter,
    /// Over all ids, 32 bits each.
    hasher: &'a mut blake3::Hasher,
    batch: Vec<String>,
    batch_bytes: usize,
    /// Tokens after which no more are written.
    limit: u64,
}

impl<'a> Encoder<'a> {
    /// Writes to `writer` and adds the ids to `hasher`.
    pub(crate) fn new(tokenizer: &'a Tokenizer, special_tokens: SpecialTokens, writer: TokenWriter, hasher: &'a mut blake3::Hasher) -> Self {
        Self { tokenizer, special_tokens, writer, hasher, batch: Vec::new(), batch_bytes: 0, limit: u64::MAX }
    }

    /// Writes `tokens` and not one more.
    pub(crate) fn with_limit(mut self, tokens: u64) -> Self {
        self.limit = tokens;
        self.writer.expected_bytes = tokens * self.width().bytes();
        self
    }

    /// Takes a piece; returns whether this filled a batch, which is then written.
    pub(crate) fn push(&mut self, piece: String) -> Result<bool, DataError> {
        self.batch_bytes += piece.len();
        self.batch.push(piece);
        let is_full = self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_PIECES;
        if is_full {
            self.flush()?;
        }
        Ok(is_full)
    }

    /// Tokens written so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.writer.tokens()
    }

    /// Records which share of the text was read, to estimate the size of the complete file.
    pub(crate) fn set_share_read(&mut self, share: f64) {
        self.writer.expected_bytes = (self.tokens() as f64 * self.width().bytes() as f64 / share) as u64;
    }

    /// Writes the rest, syncs everything to disk, and returns what was written.
    pub(crate) fn finish(mut self) -> Result<StreamOutline, DataError> {
        self.flush()?;
        self.writer.finish()
    }

    fn width(&self) -> TokenWidth {
        TokenWidth::of(self.tokenizer.vocab_size())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let (tokenizer, special_tokens) = (self.tokenizer, self.special_tokens);
        let encode = |piece: &String| -> Result<Vec<u32>, DataError> {
            let ids = tokenizer.encode(piece)?;
            Ok(special_tokens.bos.into_iter().chain(ids).chain(special_tokens.eos).collect())
        };
        let encoded: Vec<Vec<u32>> = self.batch.par_iter().map(encode).collect::<Result<_, _>>()?;
        self.batch.clear();
        self.batch_bytes = 0;
        for ids in encoded {
            let left = self.limit - self.tokens();
            let ids = &ids[..ids.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            self.hasher.update(&bytes);
            self.writer.write(ids)?;
        }
        Ok(())
    }
}
