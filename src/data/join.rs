//! Joins the ids of overlapping pieces to the ids of the whole document.
//!
//! A piece gets different ids from the whole only near its ends, where a word is cut or a space is
//! added. So two neighboring pieces share some text (the window), which is also encoded alone.
//! Where the first piece, the window and the second piece agree on a run of ids, the ids before its
//! middle are taken from the first piece and those after it from the second. For BPE merges this is
//! exact: a sequence of tokens is the encoding of its text if and only if every two adjacent tokens
//! are (and each pair is adjacent in one of the pieces). Pieces that agree nowhere are encoded as
//! one text. Start at [`Joiner::push`].

use std::collections::HashSet;

use crate::data::documents::Piece;
use crate::data::losses::Losses;
use crate::data::tokenizer::SpecialTokens;
use crate::data::{DataError, Tokenizer};

/// Bytes that two pieces share on each side of a cut: some tens of tokens.
pub(crate) const REACH: usize = 256;
/// Ids that must agree on each side of the seam.
const MARGIN: usize = 8;
/// Minimum number of distinct ids among those that agree: in a run of one letter, ids agree at
/// different positions.
const MIN_DIFFERENT: usize = 4;
/// Maximum text encoded at once where pieces do not agree; beyond it, the text is cut anyway, and
/// the cut is counted.
const MAX_JOINED_BYTES: usize = 4 << 20;

/// A piece with its ids.
#[derive(Debug)]
pub(crate) struct EncodedPiece {
    piece: Piece,
    ids: Vec<u32>,
    /// Ids of the text that it shares with the previous piece.
    window: Vec<u32>,
}

impl EncodedPiece {
    pub(crate) fn new(tokenizer: &Tokenizer, piece: Piece) -> Result<Self, DataError> {
        let window = if piece.overlap > 0 {
            tokenizer.encode(&piece.text[..piece.overlap])?
        } else {
            Vec::new()
        };
        Ok(Self { ids: tokenizer.encode(&piece.text)?, piece, window })
    }

    /// Text that is not part of the previous piece.
    pub(crate) fn own_text(&self) -> &str {
        &self.piece.text[self.piece.overlap..]
    }

    /// Whether its document ends with it.
    pub(crate) fn is_last(&self) -> bool {
        self.piece.is_last
    }
}

/// Joins pieces into the ids of documents, in order.
#[derive(Debug)]
pub(crate) struct Joiner<'a> {
    tokenizer: &'a Tokenizer,
    special_tokens: SpecialTokens,
    pending: Option<Pending>,
    /// Ids that are final.
    ready: Vec<u32>,
    /// Where documents end among them.
    ends: Vec<usize>,
    /// What the tokenizer lost.
    pub losses: Losses,
    /// Cuts where the ids may differ from those of the whole document.
    pub hard_cuts: u64,
}

/// The end of a document as read so far.
#[derive(Debug)]
struct Pending {
    text: String,
    ids: Vec<u32>,
    /// Ids at the start that the previous piece already produced.
    skip: usize,
    /// Bytes of text to be encoded at once; `None` while the ids are those of the text.
    target: Option<usize>,
}

/// Where two pieces are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seam {
    /// Number of ids kept from the first piece.
    keep: usize,
    /// Number of ids of the second piece that the first already produced.
    skip: usize,
}

impl<'a> Joiner<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, special_tokens: SpecialTokens) -> Self {
        Self {
            tokenizer,
            special_tokens,
            pending: None,
            ready: Vec::new(),
            ends: Vec::new(),
            losses: Losses::default(),
            hard_cuts: 0,
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, next: EncodedPiece) -> Result<(), DataError> {
        let is_last = next.piece.is_last;
        let pending = match self.pending.take() {
            Some(before) if !next.piece.is_first => self.join(before, next)?,
            _ => {
                self.ready.extend(self.special_tokens.bos);
                Pending { text: next.piece.text, ids: next.ids, skip: 0, target: None }
            }
        };
        if !is_last {
            self.pending = Some(pending);
            return Ok(());
        }
        let whole = self.settle(pending)?;
        self.give(&whole.ids[whole.skip.min(whole.ids.len())..]);
        self.ready.extend(self.special_tokens.eos);
        self.ends.push(self.ready.len());
        Ok(())
    }

    /// Returns the ids that are final.
    pub(crate) fn take_ready(&mut self) -> Vec<u32> {
        self.take_ready_documents().0
    }

    /// Takes out what is ready, and where documents end in it.
    pub(crate) fn take_ready_documents(&mut self) -> (Vec<u32>, Vec<usize>) {
        (std::mem::take(&mut self.ready), std::mem::take(&mut self.ends))
    }

    fn join(&mut self, mut before: Pending, next: EncodedPiece) -> Result<Pending, DataError> {
        if before.target.is_none() {
            let seam = find_seam(&before.ids, &next.window, &next.ids)
                .filter(|seam| seam.keep >= before.skip);
            if let Some(Seam { keep, skip }) = seam {
                self.give(&before.ids[before.skip..keep]);
                return Ok(Pending { text: next.piece.text, ids: next.ids, skip, target: None });
            }
            if before.text.len() >= MAX_JOINED_BYTES {
                return self.cut(&before, &next);
            }
            // Doubles each time, so that a text without a seam is encoded about twice in all.
            before.target = Some((2 * before.text.len()).min(MAX_JOINED_BYTES));
        }
        before.text.push_str(next.own_text());
        if before.target.is_some_and(|target| before.text.len() >= target) {
            self.settle(before)
        } else {
            Ok(before)
        }
    }

    /// Encodes the collected text.
    fn settle(&mut self, pending: Pending) -> Result<Pending, DataError> {
        if pending.target.is_none() {
            return Ok(pending);
        }
        let ids = self.tokenizer.encode(&pending.text)?;
        self.hard_cuts += u64::from(ids.get(..pending.skip) != pending.ids.get(..pending.skip));
        Ok(Pending { ids, target: None, ..pending })
    }

    /// Cuts in the middle of the window.
    fn cut(&mut self, before: &Pending, next: &EncodedPiece) -> Result<Pending, DataError> {
        self.hard_cuts += 1;
        let middle = next.piece.text.floor_char_boundary(next.piece.overlap / 2);
        let end = before.text.len() - (next.piece.overlap - middle);
        let ids = self.tokenizer.encode(&before.text[..end])?;
        self.give(&ids[before.skip.min(ids.len())..]);
        let text = next.piece.text[middle..].to_owned();
        Ok(Pending { ids: self.tokenizer.encode(&text)?, text, skip: 0, target: None })
    }

    fn give(&mut self, ids: &[u32]) {
        self.losses.count_tokens(self.tokenizer.losses(), ids);
        self.ready.extend(ids);
    }
}

/// The position where `before`, which ends with the window, and `after`, which begins with it, both
/// agree with the `window`.
fn find_seam(before: &[u32], window: &[u32], after: &[u32]) -> Option<Seam> {
    let at_end = before
        .iter()
        .rev()
        .zip(window.iter().rev())
        .take_while(|(own, shared)| own == shared)
        .count();
    let at_start = after.iter().zip(window).take_while(|(own, shared)| own == shared).count();
    let (first, last) = (window.len() - at_end + MARGIN, at_start.checked_sub(MARGIN)?);
    let agreed = window.get(first - MARGIN..at_start).filter(|_| first <= last)?;
    if agreed.iter().collect::<HashSet<_>>().len() < MIN_DIFFERENT {
        return None;
    }
    let skip = first.midpoint(last);
    Some(Seam { keep: before.len().checked_sub(window.len() - skip)?, skip })
}

#[cfg(test)]
mod tests;
