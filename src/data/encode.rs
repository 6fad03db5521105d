//! Encodes pieces of text into a file of token ids, on all cores, in text order.
//!
//! The pieces of a document get the ids of the whole document, with one BOS and one EOS. Start at
//! [`Encoder::push`].

use rayon::prelude::*;

use crate::data::documents::Piece;
use crate::data::held_out::DocumentEntry;
use crate::data::join::{EncodedPiece, Joiner};
use crate::data::losses::Losses;
use crate::data::stream::{StreamOutline, TokenWidth, TokenWriter};
use crate::data::tokenizer::SpecialTokens;
use crate::data::{DataError, Tokenizer};

/// Bytes of text per batch: enough for all cores, small compared with the memory of any machine.
const BATCH_BYTES: usize = 4 << 20;
/// Maximum number of short pieces per batch, so that a batch never takes long.
const BATCH_PIECES: usize = 1024;

/// Encodes pieces of text and writes their tokens.
pub(crate) struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    joiner: Joiner<'a>,
    writer: TokenWriter,
    /// Hash of all ids, 32 bits each.
    hasher: &'a mut blake3::Hasher,
    batch: Vec<Piece>,
    batch_bytes: usize,
    /// Maximum number of tokens to write.
    limit: u64,
    /// `None` if nobody asked for them.
    documents: Option<Documents>,
}

/// The documents written so far.
#[derive(Debug, Default)]
struct Documents {
    /// Hash of the text of each.
    hashes: Vec<u64>,
    /// Hash of the text of the incomplete one.
    hasher: blake3::Hasher,
    /// Tokens of each.
    lengths: Vec<u64>,
    /// Tokens of the incomplete one.
    tokens: u64,
}

/// Result of encoding into a file.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The file.
    pub stream: StreamOutline,
    /// What the tokenizer lost.
    pub losses: Losses,
    /// Cuts where the ids may differ from those of the whole document.
    pub hard_cuts: u64,
    /// The documents of the text, in order, if asked for.
    pub documents: Option<Vec<DocumentEntry>>,
}

impl Documents {
    /// Takes the text of the next piece, without what it shares with the one before.
    fn push_text(&mut self, piece: &EncodedPiece) {
        self.hasher.update(piece.own_text().as_bytes());
        if piece.is_last() {
            let hash = self.hasher.finalize();
            let (halves, _) = hash.as_bytes().as_chunks::<8>();
            self.hashes.push(u64::from_le_bytes(halves[0]));
            self.hasher.reset();
        }
    }

    /// Takes the number of the next ids, among which documents end at `ends`.
    fn push_tokens(&mut self, count: usize, ends: &[usize]) {
        let mut from = 0;
        for end in ends {
            self.lengths.push(self.tokens + (end - from) as u64);
            (from, self.tokens) = (*end, 0);
        }
        self.tokens += (count - from) as u64;
    }

    /// The documents that have tokens.
    fn entries(self) -> Vec<DocumentEntry> {
        let entries = self
            .lengths
            .into_iter()
            .zip(self.hashes)
            .map(|(tokens, hash)| DocumentEntry { tokens, hash });
        entries.filter(|entry| entry.tokens > 0).collect()
    }
}

impl<'a> Encoder<'a> {
    /// Writes to `writer` and adds the ids to `hasher`.
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        special_tokens: SpecialTokens,
        writer: TokenWriter,
        hasher: &'a mut blake3::Hasher,
    ) -> Self {
        let joiner = Joiner::new(tokenizer, special_tokens);
        Self {
            tokenizer,
            joiner,
            writer,
            hasher,
            batch: Vec::new(),
            batch_bytes: 0,
            limit: u64::MAX,
            documents: None,
        }
    }

    /// Writes at most `tokens` tokens.
    pub(crate) fn with_limit(mut self, tokens: u64) -> Self {
        self.limit = tokens;
        self.writer.expected_bytes = tokens * self.width().bytes();
        self
    }

    /// Keeps a list of the documents.
    pub(crate) fn with_documents(mut self) -> Self {
        self.documents = Some(Documents::default());
        self
    }

    /// Takes a piece; returns whether this completed a batch, which is then written.
    pub(crate) fn push(&mut self, piece: Piece) -> Result<bool, DataError> {
        self.batch_bytes += piece.text.len();
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

    /// Records the share of the text read so far, to estimate the size of the complete file.
    pub(crate) fn set_share_read(&mut self, share: f64) {
        self.writer.expected_bytes =
            (self.tokens() as f64 * self.width().bytes() as f64 / share) as u64;
    }

    /// Writes the rest, syncs everything to disk, and returns the result.
    pub(crate) fn finish(mut self) -> Result<Encoded, DataError> {
        self.flush()?;
        let Joiner { losses, hard_cuts, .. } = self.joiner;
        Ok(Encoded {
            stream: self.writer.finish()?,
            losses,
            hard_cuts,
            documents: self.documents.map(Documents::entries),
        })
    }

    fn width(&self) -> TokenWidth {
        TokenWidth::of(self.tokenizer.vocab_size())
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let tokenizer = self.tokenizer;
        let encode = |piece: Piece| -> Result<(EncodedPiece, Losses), DataError> {
            let encoded = EncodedPiece::new(tokenizer, piece)?;
            let dropped = tokenizer.dropped(encoded.own_text());
            Ok((encoded, dropped))
        };
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let encoded: Vec<_> = batch.into_par_iter().map(encode).collect::<Result<_, _>>()?;
        for (piece, dropped) in encoded {
            self.joiner.losses.add(dropped);
            if let Some(documents) = &mut self.documents {
                documents.push_text(&piece);
            }
            self.joiner.push(piece)?;
        }
        let (ids, ends) = self.joiner.take_ready_documents();
        if let Some(documents) = &mut self.documents {
            documents.push_tokens(ids.len(), &ends);
        }
        let left = usize::try_from(self.limit - self.tokens()).unwrap_or(usize::MAX);
        let ids = &ids[..ids.len().min(left)];
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        self.hasher.update(&bytes);
        self.writer.write(ids)
    }
}
