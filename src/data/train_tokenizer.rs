//! Trains a byte-level BPE vocabulary on text files.
//!
//! Returns the text of the tokenizer file, which the caller writes. Start at [`train_tokenizer`].

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use serde::Serialize;
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, TokenizerBuilder};

use crate::data::files::{FoundFiles, find_text};
use crate::data::{DataError, DocumentCounts, DocumentOptions, DocumentReader, Piece, TextRules};

/// BOS and EOS tokens, with their ids.
const SPECIAL: [&str; 2] = ["<s>", "</s>"];
/// Single bytes and special tokens, which every vocabulary contains.
const MIN_VOCAB_SIZE: usize = 256 + SPECIAL.len();
/// The trainer counts pairs in signed 32-bit numbers, and a text has at most as many pairs as
/// bytes.
const MAX_BYTES: u64 = i32::MAX as u64;
/// Pieces are short, so that all cores have work.
const PIECE_WORDS: u64 = 1000;

/// Input and parameters of tokenizer training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainTokenizerRequest {
    /// Text files, folders and patterns.
    pub files: Vec<PathBuf>,
    /// Vocabulary size, special tokens included.
    pub vocab_size: usize,
    /// Field of a JSON record that holds the text.
    pub text_field: String,
}

/// Result of tokenizer training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrainTokenizerReport {
    /// Vocabulary size; smaller than requested if the text has no more pairs to merge.
    pub vocab_size: usize,
    /// Documents read.
    pub documents: u64,
    /// Bytes of text read.
    pub text_bytes: u64,
    /// Unusable records skipped.
    pub bad_records: u64,
    /// What was skipped or changed, one sentence each.
    pub notes: Vec<String>,
}

/// Trains a vocabulary on files; the same text gives the same vocabulary.
///
/// # Errors
/// When the text cannot be read.
pub fn train_tokenizer(
    request: &TrainTokenizerRequest,
) -> Result<(Vocabulary, TrainTokenizerReport), DataError> {
    let FoundFiles { files, passed_over } = find_text(&request.files, TextRules::Current)?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    if bytes > MAX_BYTES {
        return Err(DataError::TooMuchText { bytes, limit: MAX_BYTES });
    }
    let options = DocumentOptions {
        text_field: request.text_field.clone(),
        max_document_words: PIECE_WORDS,
        max_bad_records: 0.01,
        reach: 0,
        rules: TextRules::Current,
    };
    // The trainer pulls its text and the reader pushes it, so they meet at a channel, which also
    // keeps memory small.
    let (sender, receiver) = sync_channel(64);
    let (vocabulary, report) = thread::scope(|scope| {
        let reading =
            thread::Builder::new().name("read-text".into()).spawn_scoped(scope, move || {
                let mut reader = DocumentReader::new(options);
                let mut send = |piece, _| send_piece(&sender, piece);
                files
                    .iter()
                    .try_for_each(|file| reader.read(file, &mut send))
                    .and_then(|()| reader.finish())
            });
        match reading {
            Ok(reading) => (train_vocabulary(receiver, request.vocab_size), joined(reading.join())),
            Err(error) => (
                Err(DataError::Encode { reason: error.to_string() }),
                Ok(DocumentCounts::default()),
            ),
        }
    });
    let (vocabulary, report) = match (vocabulary, report) {
        // If training fails, reading is interrupted and training reports why; if reading fails, the
        // trained vocabulary is that of an incomplete text.
        (Err(error), Err(DataError::Interrupted)) | (_, Err(error)) => return Err(error),
        (vocabulary, Ok(report)) => (vocabulary?, report),
    };
    let report = TrainTokenizerReport {
        vocab_size: vocabulary.size,
        documents: report.documents,
        text_bytes: report.text_bytes,
        bad_records: report.bad_records,
        notes: [passed_over.notes(), report.notes()].concat(),
    };
    Ok((vocabulary, report))
}

/// A trained vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// Text of the tokenizer file.
    pub json: String,
    /// Vocabulary size, special tokens included.
    pub size: usize,
}

/// Trains a byte-level BPE with `<s>` and `</s>` on texts; their order does not matter.
pub fn train_vocabulary(
    texts: impl IntoIterator<Item = String, IntoIter: Send>,
    vocab_size: usize,
) -> Result<Vocabulary, DataError> {
    if vocab_size < MIN_VOCAB_SIZE {
        return Err(DataError::VocabularyTooSmall { vocab_size, minimum: MIN_VOCAB_SIZE });
    }
    let failed = |error: tokenizers::Error| DataError::Encode { reason: error.to_string() };
    let special = SPECIAL.map(|name| AddedToken::from(name, true));
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let bos_first = TemplateProcessing::builder()
        .try_single("<s> $A")
        .and_then(|builder| {
            builder.special_tokens(vec![("<s>", 0)]).build().map_err(|error| error.to_string())
        })
        .map_err(|reason| DataError::Encode { reason })?;
    let mut tokenizer =
        TokenizerBuilder::<BPE, NFC, ByteLevel, TemplateProcessing, ByteLevelDecoder>::new()
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(ByteLevel::default().add_prefix_space(false)))
            .with_post_processor(Some(bos_first))
            .with_decoder(Some(ByteLevelDecoder::default()))
            .build()
            .map_err(failed)?;
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(failed)?;
    let json = tokenizer.to_string(false).map_err(failed)?;
    Ok(Vocabulary { json, size: tokenizer.get_vocab_size(true) })
}

/// Sends a piece to the trainer; a trainer that is gone has failed and reports why itself.
fn send_piece(sender: &SyncSender<String>, piece: Piece) -> Result<(), DataError> {
    sender.send(piece.text).map_err(|_| DataError::Interrupted)
}

fn joined(
    result: thread::Result<Result<DocumentCounts, DataError>>,
) -> Result<DocumentCounts, DataError> {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
