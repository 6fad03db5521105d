//! Estimates the number of tokens of a text from its first bytes, for plans that are made before
//! the text is prepared.
//!
//! Writes nothing. Start at [`estimate_train_tokens`].

use crate::config::{DataConfig, TextSource, ValidationSource};
use crate::data::{
    self, DataError, DocumentOptions, DocumentReader, SourceFile, TextRules, Tokenizer, find_files,
};

/// Maximum number of files to read, spread over the list.
const MOST_FILES: usize = 4;
/// Bytes to read from each file.
const MOST_BYTES: u64 = 512 << 10;

/// A sample of the text and its number of tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    bytes: u64,
    tokens: u64,
}

/// Estimated number of training tokens in the text files of `config`; `None` for generated text, or
/// if nothing could be read.
///
/// # Errors
/// When a file is missing or cannot be read as text.
pub fn estimate_train_tokens(
    config: &DataConfig,
    tokenizer: &Tokenizer,
) -> Result<Option<u64>, DataError> {
    let TextSource::Files(patterns) = config.source() else { return Ok(None) };
    let files = find_files(patterns)?;
    let mut sample = Piece::default();
    for file in spread(&files) {
        let piece = piece_of(file, config, tokenizer)?;
        sample = Piece { bytes: sample.bytes + piece.bytes, tokens: sample.tokens + piece.tokens };
    }
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let tokens = sample.tokens as f64 * bytes as f64 / sample.bytes as f64;
    let training_share = match config.validation() {
        ValidationSource::Files(_) => 1.0,
        ValidationSource::Share(share) => 1.0 - share.get(),
    };
    Ok((sample.bytes > 0).then_some((tokens * training_share) as u64))
}

/// At most [`MOST_FILES`] of `files`, evenly spaced.
fn spread(files: &[SourceFile]) -> impl Iterator<Item = &SourceFile> {
    let count = files.len().min(MOST_FILES);
    (0..count).map(move |idx| &files[idx * files.len() / count])
}

/// The first bytes of `file`, or all of them if it is small.
fn piece_of(
    file: &SourceFile,
    config: &DataConfig,
    tokenizer: &Tokenizer,
) -> Result<Piece, DataError> {
    let special_tokens = u64::from(config.add_bos) + u64::from(config.add_eos);
    let mut reader = DocumentReader::new(DocumentOptions {
        text_field: config.text_field.clone(),
        max_document_words: config.max_document_words.0,
        max_bad_records: config.max_bad_records,
        reach: 0,
        rules: TextRules::Current,
    });
    let (mut read, mut tokens, mut whole) = (0, 0, Piece::default());
    let mut count = |part: data::Piece, bytes: u64| {
        // Files are read in large buffers: bytes and tokens refer to the same text only at the end
        // of a buffer.
        if bytes > read {
            whole = Piece { bytes: read, tokens };
            read = bytes;
        }
        if read > MOST_BYTES && whole.bytes > 0 {
            return Err(DataError::Interrupted);
        }
        tokens += special_tokens + tokenizer.encode(&part.text)?.len() as u64;
        Ok(())
    };
    match reader.read(file, &mut count) {
        Ok(()) => Ok(Piece { bytes: file.bytes, tokens }),
        Err(DataError::Interrupted) => Ok(whole),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};

    #[test]
    fn a_short_text_is_counted_and_a_long_one_estimated() {
        let folder = tempfile::tempdir().unwrap();
        let estimate = |files: &str| {
            let sets = [
                format!("data.files=[{files}]"),
                "data.tokenizer=bytes".into(),
                "data.validation_share=0.5".into(),
            ];
            let config =
                load(&LoadRequest { source: "demo", sets: &sets, current_dir: folder.path() })
                    .unwrap()
                    .config;
            estimate_train_tokens(&config.data, &Tokenizer::load("bytes").unwrap()).unwrap()
        };
        fs::write(folder.path().join("short.txt"), "x".repeat(999)).unwrap();
        assert_eq!(
            estimate("'short.txt'"),
            Some(500),
            "999 bytes and a BOS token, half of them for validation"
        );
        // A token per letter of the text, a fifth of each line.
        let record =
            format!("{{\"text\": \"{}\", \"more\": \"{}\"}}\n", "x".repeat(200), "y".repeat(778));
        assert_eq!(record.len(), 1003);
        fs::write(folder.path().join("long.jsonl"), record.repeat(5000)).unwrap();
        let estimated = estimate("'long.jsonl'").unwrap() as f64;
        assert!((estimated / (5000.0 * 201.0 / 2.0) - 1.0).abs() < 0.01, "{estimated}");
        assert!(!Path::new(&folder.path().join(".tokens")).exists());
    }
}
