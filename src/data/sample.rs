//! The first tokens of a text named on the command line.
//!
//! Reads the documents as training does, without writing token files. Start at [`first_tokens`].

use std::path::Path;

use crate::data::join::{EncodedPiece, Joiner, REACH};
use crate::data::tokenizer::SpecialTokens;
use crate::data::{
    DataError, DocumentOptions, DocumentReader, Piece, TextRules, Tokenizer, find_files,
};

/// Bytes of text encoded at once.
const MAX_PIECE_WORDS: u64 = 10_000;

/// At most `most` tokens of the documents of `file`: plain text, or JSON records with a field
/// `text`.
///
/// Each document begins with `bos`, if there is one. Reads no more than needed.
///
/// # Errors
/// When the file is missing, empty, or no text.
pub fn first_tokens(
    file: &Path,
    tokenizer: &Tokenizer,
    bos: Option<u32>,
    most: usize,
) -> Result<Vec<u32>, DataError> {
    let files = find_files(&[file.to_owned()])?;
    let options = DocumentOptions {
        text_field: "text".into(),
        max_document_words: MAX_PIECE_WORDS,
        max_bad_records: 0.0,
        reach: REACH,
        rules: TextRules::Current,
    };
    let mut reader = DocumentReader::new(options);
    let mut joiner = Joiner::new(tokenizer, SpecialTokens { bos, eos: None });
    let mut tokens: Vec<u32> = Vec::new();
    let mut take = |piece: Piece, _: u64| {
        joiner.push(EncodedPiece::new(tokenizer, piece)?)?;
        tokens.extend(joiner.take_ready());
        // The only way to stop reading early.
        if tokens.len() < most { Ok(()) } else { Err(DataError::Interrupted) }
    };
    for file in &files {
        file.check(TextRules::Current)?;
        match reader.read(file, &mut take) {
            Ok(()) => {}
            Err(DataError::Interrupted) => break,
            Err(error) => return Err(error),
        }
    }
    tokens.truncate(most);
    Ok(tokens)
}
