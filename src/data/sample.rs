//! The first tokens of a text that somebody names on a command line.
//!
//! Reads the documents as training does, without files of tokens in between. Start at [`first_tokens`].

use std::path::Path;

use crate::data::{DataError, DocumentOptions, DocumentReader, Tokenizer, find_files};

/// Longer documents are cut here, as in training by default, so that each piece begins as the network knows it.
const MAX_DOCUMENT_WORDS: u64 = 10_000;

/// At most `most` tokens of the documents of `file`: plain text, or JSON records with a field `text`.
///
/// Each document begins with `bos`, if there is one. No more is read than needed.
///
/// # Errors
/// When the file is missing, empty, or no text.
pub fn first_tokens(file: &Path, tokenizer: &Tokenizer, bos: Option<u32>, most: usize) -> Result<Vec<u32>, DataError> {
    let files = find_files(&[file.to_owned()])?;
    let mut reader = DocumentReader::new(DocumentOptions { text_field: "text".into(), max_document_words: MAX_DOCUMENT_WORDS, max_bad_records: 0.0 });
    let mut tokens: Vec<u32> = Vec::new();
    let mut take = |piece: String, _: u64| {
        tokens.extend(bos);
        tokens.extend(tokenizer.encode(&piece)?);
        // The only way to end the reading early.
        if tokens.len() < most { Ok(()) } else { Err(DataError::Interrupted) }
    };
    for file in &files {
        file.check()?;
        match reader.read(file, &mut take) {
            Ok(()) => {}
            Err(DataError::Interrupted) => break,
            Err(error) => return Err(error),
        }
    }
    tokens.truncate(most);
    Ok(tokens)
}
