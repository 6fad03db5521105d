//! Cuts a long document into pieces that overlap, so that the ids of the pieces can be joined to
//! those of the whole.
//!
//! Works on words and bytes. Start at [`Splitter::push`].

use crate::data::DataError;

/// A word longer than this is taken for text without spaces, and a piece has at most this many
/// bytes per word on average.
const MAX_BYTES_PER_WORD: u64 = 64;
/// Minimum length of a piece with overlaps, as a multiple of the overlap, so that little is encoded
/// twice.
const PIECE_PER_OVERLAP: usize = 16;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Text of the part, and the overlap with its neighbors.
    pub text: String,
    /// Bytes at its start that the previous piece ends with.
    pub overlap: usize,
    /// Whether a document begins with it.
    pub is_first: bool,
    /// Whether a document ends with it.
    pub is_last: bool,
}

impl Piece {
    /// A document that is not cut.
    pub(crate) fn whole(text: String) -> Self {
        Self { text, overlap: 0, is_first: true, is_last: true }
    }
}

/// Receives the pieces of a document in order.
pub(super) type Pieces<'a> = dyn FnMut(Piece) -> Result<(), DataError> + 'a;

/// Cuts one document.
pub(super) struct Splitter {
    max_words: u64,
    max_bytes: usize,
    min_bytes: usize,
    /// Bytes before and after a cut that both pieces hold; with 0 each piece is a separate
    /// document.
    reach: usize,
    /// Text from the start of the next piece on.
    buffer: String,
    /// Bytes at the start of the buffer that belong to the previous piece as well.
    overlap: usize,
    /// Where the part of the document begins that is not before a cut.
    start: usize,
    /// A cut whose piece waits for the text after it.
    cut: Option<usize>,
    /// Words begun since `start`.
    words: u64,
    in_word: bool,
    /// Where the last white space begins.
    gap: usize,
    /// Pieces passed on.
    pub pieces: u64,
    /// Bytes of the document so far.
    pub bytes: u64,
}

impl Splitter {
    /// Pieces of at most `max_words` words that share `reach` bytes on each side of a cut.
    pub(super) fn new(max_words: u64, reach: usize) -> Self {
        let max_words = max_words.max(1);
        let max_bytes =
            usize::try_from(max_words.saturating_mul(MAX_BYTES_PER_WORD)).unwrap_or(usize::MAX);
        let min_bytes = reach * PIECE_PER_OVERLAP;
        let (buffer, max_bytes) = (String::new(), max_bytes.max(min_bytes));
        Self {
            max_words,
            max_bytes,
            min_bytes,
            reach,
            buffer,
            overlap: 0,
            start: 0,
            cut: None,
            words: 0,
            in_word: false,
            gap: 0,
            pieces: 0,
            bytes: 0,
        }
    }

    /// Takes the next part of the document and passes on the pieces that are complete.
    ///
    /// A cut is made before the white space in front of the next word, since byte-level
    /// vocabularies know words with their space.
    pub(super) fn push(&mut self, text: &str, sink: &mut Pieces<'_>) -> Result<(), DataError> {
        let from = self.buffer.len();
        self.buffer.push_str(text);
        self.bytes += text.len() as u64;
        // Where the next piece begins; what lies before it leaves the buffer at the end, once.
        let mut base = 0;
        for (at, c) in text.char_indices() {
            let at = from + at;
            if let Some(cut) = self.cut.filter(|cut| at >= cut + self.reach) {
                let end = if self.reach == 0 { cut } else { at };
                self.pass_on(base, end, sink)?;
                base = self.buffer.floor_char_boundary(cut.saturating_sub(self.reach)).max(base);
                self.overlap = end - base;
            }
            self.scan(at, c);
        }
        self.buffer.drain(..base);
        self.start -= base;
        self.gap = self.gap.saturating_sub(base);
        self.cut = self.cut.map(|cut| cut - base);
        Ok(())
    }

    /// Passes on the rest.
    pub(super) fn finish(&mut self, sink: &mut Pieces<'_>) -> Result<(), DataError> {
        let mut base = 0;
        // A cut whose reach the document does not fill is not made, unless the pieces share
        // nothing.
        if let Some(cut) = self.cut.filter(|_| self.reach == 0) {
            self.pass_on(0, cut, sink)?;
            base = cut;
        }
        if base == self.buffer.len() {
            return Ok(());
        }
        self.buffer.drain(..base);
        self.pieces += 1;
        let is_first = self.pieces == 1 || self.reach == 0;
        sink(Piece {
            text: std::mem::take(&mut self.buffer),
            overlap: self.overlap,
            is_first,
            is_last: true,
        })
    }

    /// Looks for a cut before `c`, the character at `at`.
    fn scan(&mut self, at: usize, c: char) {
        let begins_word = !c.is_whitespace() && !self.in_word;
        let is_long = at - self.start >= self.min_bytes;
        let cut = if begins_word && self.words >= self.max_words && is_long {
            Some(self.gap)
        } else if at - self.start >= self.max_bytes {
            Some(at)
        } else {
            None
        };
        if let Some(cut) = cut.filter(|_| self.cut.is_none()) {
            self.cut = Some(cut);
            self.start = cut;
            self.words = u64::from(self.in_word && !c.is_whitespace());
        }
        if c.is_whitespace() {
            self.gap = at;
        }
        self.words += u64::from(begins_word);
        self.in_word = !c.is_whitespace();
    }

    fn pass_on(&mut self, base: usize, end: usize, sink: &mut Pieces<'_>) -> Result<(), DataError> {
        self.cut = None;
        self.pieces += 1;
        let (is_first, is_last) = (self.pieces == 1 || self.reach == 0, self.reach == 0);
        sink(Piece {
            text: self.buffer[base..end].to_owned(),
            overlap: self.overlap,
            is_first,
            is_last,
        })
    }
}
