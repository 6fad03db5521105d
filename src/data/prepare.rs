//! From a configuration to token streams: find the files, check the cache, read, encode, store.
//!
//! Start at [`prepare`]; [`Inputs`] checks what can be refused before anything is written.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{DataConfig, TextGenerator, TextSource, ValidationSource};
use crate::data::cache::{self, Building, CacheManifest, Cached};
use crate::data::documents::Piece;
use crate::data::encode::{Encoded, Encoder};
use crate::data::error::bytes_in_words;
use crate::data::files::{FoundFiles, find_text};
use crate::data::grammar::Grammar;
use crate::data::held_out::{HeldOut, hold_out, read_table, write_table};
use crate::data::join::REACH;
use crate::data::passed_over::Reason;
use crate::data::stream::{StreamOutline, TokenWidth, TokenWriter};
use crate::data::tokenizer::SpecialTokens;
use crate::data::{
    DataError, DocumentCounts, DocumentOptions, DocumentReader, Losses, PassedOver, PrepareReport,
    SourceFile, TextFormat, TextRules, TokenStream, Tokenizer,
};
use crate::disk::Disk;

/// Prepared tokens of at most this many bytes are checked completely before the first step, which
/// takes some seconds; blocks of larger files are checked when they are first read.
const CHECKED_AT_START: u64 = 4 << 30;

/// Progress callback: activity, amount done, total if known. Breaking it interrupts the work.
pub type Watch<'a> = dyn FnMut(&str, u64, Option<u64>) -> ControlFlow<()> + 'a;

/// What to prepare.
#[derive(Debug, Clone, Copy)]
pub struct PrepareRequest<'a> {
    /// Text, tokenizer and options.
    pub data: &'a DataConfig,
    /// Seed of a generator.
    pub seed: u64,
    /// Number of training tokens to generate; rounded up to whole blocks.
    pub generated_tokens: u64,
    /// Tokens of a block: no stream may be shorter.
    pub block_tokens: u64,
    /// Folder of prepared tokens; created if absent.
    pub cache: &'a Path,
    /// Fingerprint of the tokens that a run was trained on, if there is one: they are used where
    /// they are found, even if the text has changed since.
    pub trained_on: Option<&'a str>,
    /// Rules by which files become documents: a run that resumes keeps those that it was started
    /// with.
    pub rules: TextRules,
}

/// Tokens ready to be read.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Training tokens.
    pub train: TokenStream,
    /// Validation tokens.
    pub validation: TokenStream,
    /// Hash of all token ids and of the tokenizer, in hexadecimal.
    pub fingerprint: String,
    /// Tokenizer that produced the ids.
    pub tokenizer: Tokenizer,
    /// True entropy rate of the text in nats per token, if it is known.
    pub entropy_rate: Option<f64>,
    /// Counts of what was read.
    pub report: PrepareReport,
    /// Whether the tokens came from the cache.
    pub is_reused: bool,
    /// Whether the text has changed since the run's tokens were prepared from it.
    pub text_has_changed: bool,
    /// Rules by which the files became documents.
    pub rules: TextRules,
    /// What was held out for validation, if it was chosen among documents.
    pub held_out: Option<HeldOut>,
}

impl Prepared {
    /// The file of prepared tokens and the ranges of it that are validation text, in the order in
    /// which they are read; `None` if the validation text has files of its own.
    #[must_use]
    pub fn held_out_ranges(&self) -> Option<(&Path, Vec<Range<u64>>)> {
        (self.train.path() == self.validation.path())
            .then(|| (self.validation.path(), self.validation.ranges()))
    }
}

/// Prepares the training and validation tokens, or finds them prepared.
///
/// # Errors
/// When the text cannot be used or the tokens cannot be written; [`DataError::Interrupted`] when
/// `watch` breaks. Nothing half-done is left behind, and the next call starts over.
pub fn prepare(request: &PrepareRequest<'_>, watch: &mut Watch<'_>) -> Result<Prepared, DataError> {
    prepare_on(&Disk::default(), request, watch)
}

/// As [`prepare`], on a file system that can fail.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_on(
    disk: &Disk,
    request: &PrepareRequest<'_>,
    watch: &mut Watch<'_>,
) -> Result<Prepared, DataError> {
    let inputs = Inputs::find_by(request.data, request.rules)?;
    let (cached, origin) = match inputs.find_prepared(request) {
        Some(found) => found,
        None => (inputs.build(disk, request, watch)?, TokensFrom::New),
    };
    let Cached { mut streams, documents, manifest } = cached;
    if origin != TokensFrom::New {
        check_content(&streams, watch)?;
    }
    let (train, validation, held_out) =
        match (request.data.validation(), streams.pop(), streams.pop()) {
            (ValidationSource::Files(_), Some(validation), Some(train)) => {
                (train, validation, None)
            }
            (ValidationSource::Share(share), Some(text), None) => {
                inputs.split(request, share.get(), &text, documents.as_ref())?
            }
            _ => unreachable!("a folder of the cache has the streams that its key implies"),
        };
    check_length("training", &train, request)?;
    check_length("validation", &validation, request)?;
    let entropy_rate = match request.data.source() {
        TextSource::Files(_) => None,
        TextSource::Generated(TextGenerator::Grammar) => {
            Grammar::built_in().entropy_rate(&inputs.tokenizer, inputs.special_tokens.len())?
        }
    };
    let CacheManifest { fingerprint, mut report, .. } = manifest;
    report.notes.extend_from_slice(inputs.tokenizer.notes());
    let (is_reused, text_has_changed) =
        (origin != TokensFrom::New, origin == TokensFrom::OlderText);
    let (tokenizer, rules) = (inputs.tokenizer, request.rules);
    Ok(Prepared {
        train,
        validation,
        fingerprint,
        tokenizer,
        entropy_rate,
        report,
        is_reused,
        text_has_changed,
        rules,
        held_out,
    })
}

/// Origin of prepared tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TokensFrom {
    /// Prepared from the text just now.
    New,
    /// Found in the cache, for the text as it is.
    Cache,
    /// Found in the cache, for the text as it was when the run began.
    OlderText,
}

/// The files of a configuration, found and opened, before any text is read completely.
#[derive(Debug)]
pub struct Inputs<'a> {
    config: &'a DataConfig,
    rules: TextRules,
    tokenizer: Tokenizer,
    special_tokens: SpecialTokens,
    passed_over: PassedOver,
    /// `None` for generated text.
    train_files: Option<Vec<SourceFile>>,
    /// `None` if a share of the training text is used.
    validation_files: Option<Vec<SourceFile>>,
}

/// Everything that determines the ids; hashed into the cache key.
#[derive(Serialize)]
struct KeyParts<'a> {
    tokenizer: &'a str,
    /// The ids that begin and end documents: files beside the tokenizer name them.
    special_tokens: [Option<u32>; 2],
    rules: u32,
    add_bos: bool,
    add_eos: bool,
    text_field: &'a str,
    max_document_words: u64,
    max_bad_records: f64,
    train_files: Option<Vec<KeyFile<'a>>>,
    validation_files: Option<Vec<KeyFile<'a>>>,
    /// Grammar, seed, tokens.
    generated: Option<(&'a str, u64, u64)>,
}

/// Path as bytes, size, times of change of content and of the file itself.
type KeyFile<'a> = (&'a [u8], u64, u128, i128);

impl<'a> Inputs<'a> {
    /// Checks what can be checked without reading everything: the tokenizer loads, every file
    /// exists and begins with text.
    ///
    /// # Errors
    /// The first thing that would stop [`prepare`].
    pub fn find(config: &'a DataConfig) -> Result<Self, DataError> {
        Self::find_by(config, TextRules::Current)
    }

    /// As [`Self::find`], under the rules of an existing run.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_by(config: &'a DataConfig, rules: TextRules) -> Result<Self, DataError> {
        let tokenizer = Tokenizer::load(&config.tokenizer)?;
        let special_tokens = tokenizer.special_tokens(config)?;
        let mut passed_over = PassedOver::default();
        let mut usable = |patterns: &[PathBuf]| -> Result<_, DataError> {
            let found = usable_files(patterns, rules)?;
            passed_over.extend(found.passed_over);
            Ok(Some(found.files))
        };
        let train_files = match config.source() {
            TextSource::Files(patterns) => usable(patterns)?,
            TextSource::Generated(TextGenerator::Grammar) => None,
        };
        let validation_files = match config.validation() {
            ValidationSource::Files(patterns) => usable(patterns)?,
            ValidationSource::Share(_) => None,
        };
        let is_trained_on =
            |file: &&SourceFile| train_files.iter().flatten().any(|other| other.path == file.path);
        if let Some(shared) = validation_files.iter().flatten().find(is_trained_on) {
            return Err(DataError::SharedFile { path: shared.path.clone() });
        }
        Ok(Self {
            config,
            rules,
            tokenizer,
            special_tokens,
            passed_over,
            train_files,
            validation_files,
        })
    }

    /// The tokenizer, loaded.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Checks by size alone, before anything is read: the disk has space for generated tokens, and
    /// the files hold enough text. Returns a warning if the tokens of files may not fit on the
    /// disk.
    ///
    /// # Errors
    /// When the tokens cannot fit, or the text is certainly too short. Nothing was written then.
    pub fn check_sizes(&self, request: &PrepareRequest<'_>) -> Result<Option<String>, DataError> {
        self.check_lengths(request.block_tokens)?;
        if self.find_prepared(request).is_some() {
            return Ok(None);
        }
        let Some(free) = free_bytes(request.cache) else { return Ok(None) };
        self.check_space(request, free)
    }

    fn check_space(
        &self,
        request: &PrepareRequest<'_>,
        free: u64,
    ) -> Result<Option<String>, DataError> {
        let width = TokenWidth::of(self.tokenizer.vocab_size()).bytes();
        if self.train_files.is_none() {
            let needed = with_margin(self.generated_tokens(request).saturating_mul(width));
            let folder = request.cache.to_owned();
            return if needed <= free {
                Ok(None)
            } else {
                Err(DataError::NoRoom { folder, needed, free })
            };
        }
        let files = [&self.train_files, &self.validation_files].into_iter().flatten();
        let tokens = files
            .map(|files| self.max_tokens_of(files))
            .try_fold(0_u64, |sum, most| Some(sum.saturating_add(most?)));
        let needed = with_margin(tokens.unwrap_or(0).saturating_mul(width));
        let warning = || {
            let [needed, free] = [needed, free].map(bytes_in_words);
            format!(
                "the prepared tokens may take up to {needed} in {}, but only {free} is free there",
                request.cache.display()
            )
        };
        Ok((needed > free).then(warning))
    }

    /// Refuses files that are too small for training and validation.
    fn check_lengths(&self, block_tokens: u64) -> Result<(), DataError> {
        let Some(train_files) = &self.train_files else { return Ok(()) };
        let parts = match &self.validation_files {
            None => vec![("whole", train_files, block_tokens.saturating_mul(2))],
            Some(validation_files) => vec![
                ("training", train_files, block_tokens),
                ("validation", validation_files, block_tokens),
            ],
        };
        for (part, files, needed) in parts {
            if let Some(at_most) = self.max_tokens_of(files).filter(|most| *most < needed) {
                // More of the same text would not help if its records cannot be used.
                self.check_records(files)?;
                return Err(DataError::FilesTooSmall { part, at_most, needed, block_tokens });
            }
        }
        Ok(())
    }

    /// Refuses `files` in which too many records cannot be used; reads all of them.
    fn check_records(&self, files: &[SourceFile]) -> Result<(), DataError> {
        let mut reader = self.reader();
        files.iter().try_for_each(|file| reader.read(file, &mut |_, _| Ok(())))?;
        reader.finish().map(|_| ())
    }

    fn reader(&self) -> DocumentReader {
        DocumentReader::new(DocumentOptions {
            text_field: self.config.text_field.clone(),
            max_document_words: self.config.max_document_words.0,
            max_bad_records: self.config.max_bad_records,
            reach: if self.rules > TextRules::First { REACH } else { 0 },
            rules: self.rules,
        })
    }

    /// An upper bound of the tokens in `files`, if their sizes imply one.
    fn max_tokens_of(&self, files: &[SourceFile]) -> Option<u64> {
        if !self.tokenizer.never_adds_tokens() {
            return None;
        }
        // Besides its special tokens a piece may get one more: a space before its first word.
        let per_piece = self.special_tokens.len() as u64 + 1;
        let most = |bytes: u64| {
            bytes.saturating_add(
                per_piece.saturating_mul(1 + bytes / self.config.max_document_words.0.max(1)),
            )
        };
        let of_file = |file: &SourceFile| match file.format {
            TextFormat::Plain => most(file.bytes),
            // A record is at least as long as its quotes, its line feed and one letter.
            TextFormat::JsonLines | TextFormat::Json => {
                most(file.bytes).saturating_add(per_piece.saturating_mul(file.bytes / 4))
            }
        };
        Some(files.iter().map(of_file).fold(0, u64::saturating_add))
    }

    /// The tokens of the text as it is now, or as it was when the run began.
    fn find_prepared(&self, request: &PrepareRequest<'_>) -> Option<(Cached, TokensFrom)> {
        let (num_streams, vocab_size) =
            (1 + usize::from(self.validation_files.is_some()), self.tokenizer.vocab_size());
        if let Some(cached) = cache::open(&self.folder(request), num_streams, vocab_size) {
            return Some((cached, TokensFrom::Cache));
        }
        let older = cache::find(request.cache, request.trained_on?, num_streams, vocab_size)?;
        Some((older, TokensFrom::OlderText))
    }

    /// Cache folder for the tokens of the text.
    fn folder(&self, request: &PrepareRequest<'_>) -> PathBuf {
        request.cache.join(self.key(request))
    }

    fn key(&self, request: &PrepareRequest<'_>) -> String {
        fn listed(files: &[SourceFile]) -> Vec<KeyFile<'_>> {
            files
                .iter()
                .map(|file| {
                    (
                        file.path.as_os_str().as_encoded_bytes(),
                        file.bytes,
                        file.modified_nanos,
                        file.changed_nanos,
                    )
                })
                .collect()
        }
        let generated = self.train_files.is_none().then(|| {
            (Grammar::built_in().fingerprint(), request.seed, self.generated_tokens(request))
        });
        cache::key(&KeyParts {
            tokenizer: self.tokenizer.fingerprint(),
            special_tokens: [self.special_tokens.bos, self.special_tokens.eos],
            rules: self.rules.version(),
            add_bos: self.config.add_bos,
            add_eos: self.config.add_eos,
            text_field: &self.config.text_field,
            max_document_words: self.config.max_document_words.0,
            max_bad_records: self.config.max_bad_records,
            train_files: self.train_files.as_deref().map(listed),
            validation_files: self.validation_files.as_deref().map(listed),
            generated,
        })
    }

    fn build(
        &self,
        disk: &Disk,
        request: &PrepareRequest<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Cached, DataError> {
        self.check_sizes(request)?;
        let building = Building::start(&self.folder(request), disk)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.tokenizer.fingerprint().as_bytes());
        let mut reader = self.reader();
        let mut report =
            PrepareReport { passed_over: self.passed_over.clone(), ..PrepareReport::default() };
        let mut streams = Vec::new();
        let mut documents = None;
        let width = TokenWidth::of(self.tokenizer.vocab_size());
        for (index, files) in [&self.train_files, &self.validation_files].into_iter().enumerate() {
            if index == 1 && files.is_none() {
                continue;
            }
            let writer = TokenWriter::create(disk, &building.stream_path(index), width)?;
            let encoder = Encoder::new(&self.tokenizer, self.special_tokens, writer, &mut hasher);
            let encoder =
                if self.holds_out_documents() { encoder.with_documents() } else { encoder };
            let mut outcome = match files {
                Some(files) => read_files(files, &mut reader, encoder, watch)?,
                None => generate(
                    request.seed,
                    self.generated_tokens(request),
                    encoder,
                    &mut report,
                    watch,
                )?,
            };
            report.files += files.as_ref().map_or(0, Vec::len) as u64;
            documents = documents.or(outcome.documents.take());
            streams.push(report.add_encoded(outcome));
        }
        report.add(reader.finish()?);
        self.check_losses(&report.losses)?;
        // A stream without tokens would be taken for a broken one.
        if streams.iter().any(|stream| stream.tokens == 0) {
            let part = if streams[0].tokens == 0 { "training" } else { "validation" };
            return Err(DataError::TooLittleText {
                part,
                tokens: 0,
                needed: request.block_tokens,
                block_tokens: request.block_tokens,
            });
        }
        let documents = match documents {
            Some(documents) => Some(write_table(disk, &building.documents_path(), &documents)?),
            None => None,
        };
        // The same ids in other documents are split into other parts.
        for hash in documents.iter().flat_map(|table| &table.block_hashes) {
            hasher.update(hash.as_bytes());
        }
        let manifest =
            CacheManifest::new(streams, documents, hasher.finalize().to_hex().to_string(), report);
        building.publish(manifest, self.tokenizer.vocab_size())
    }

    /// Whether a share of the text is held out by documents; generated text is the same everywhere,
    /// and so its end serves.
    fn holds_out_documents(&self) -> bool {
        self.rules > TextRules::Second
            && self.train_files.is_some()
            && self.validation_files.is_none()
    }

    /// Refuses text of which the tokenizer loses too much; an existing run keeps its text.
    fn check_losses(&self, losses: &Losses) -> Result<(), DataError> {
        let (share, what) = losses.worst();
        let limit = self.config.max_lost_text;
        if share <= limit || self.rules == TextRules::First {
            Ok(())
        } else {
            Err(DataError::TextLost { what, share, limit })
        }
    }

    /// Tokens of a generated stream: whole training blocks, then the validation text if it is not
    /// read from files.
    fn generated_tokens(&self, request: &PrepareRequest<'_>) -> u64 {
        let train = generated_training_tokens(request);
        match self.config.validation() {
            ValidationSource::Files(_) => train,
            ValidationSource::Share(share) => {
                train.saturating_add(share_of(share.get(), train, request.block_tokens))
            }
        }
    }

    /// Training and validation tokens of one text: documents held out of it if their table is
    /// known, else its end.
    fn split(
        &self,
        request: &PrepareRequest<'_>,
        share: f64,
        text: &TokenStream,
        documents: Option<&TokenStream>,
    ) -> Result<(TokenStream, TokenStream, Option<HeldOut>), DataError> {
        let validation = match self.train_files {
            Some(_) => share_of(share, text.len(), request.block_tokens),
            None => share_of(share, generated_training_tokens(request), request.block_tokens),
        };
        let needed = validation + request.block_tokens;
        if text.len() < needed {
            return Err(DataError::TooLittleText {
                part: "whole",
                tokens: text.len(),
                needed,
                block_tokens: request.block_tokens,
            });
        }
        let Some(documents) = documents else {
            let train = text.len() - validation;
            return Ok((text.slice(0..train), text.slice(train..text.len()), None));
        };
        let split = hold_out(&read_table(documents, text.len())?, validation);
        Ok((text.select(&split.train), text.select(&split.validation), Some(split.chosen)))
    }
}

impl PrepareReport {
    fn add(&mut self, read: DocumentCounts) {
        self.documents += read.documents;
        self.split_documents += read.split_documents;
        self.text_bytes += read.text_bytes;
        self.records += read.records;
        self.bad_records += read.bad_records;
        self.empty_records += read.empty_records;
        self.notes = [self.passed_over.notes(), read.notes()].concat();
        self.first_bad_record = read.first_bad_record.map(|bad| bad.to_string());
    }

    /// Differences between the tokens and the text, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let cuts = self.hard_cuts;
        let cut = (cuts > 0).then(|| {
            format!(
                "cuts in long documents where tokens may differ from those of the whole document: \
                 {cuts}"
            )
        });
        self.losses.notes().into_iter().chain(cut).collect()
    }

    /// Adds what was encoded into one file, and returns the outline of the file.
    fn add_encoded(&mut self, encoded: Encoded) -> StreamOutline {
        self.losses.add(encoded.losses);
        self.hard_cuts += encoded.hard_cuts;
        encoded.stream
    }
}

/// The text files of `patterns`. Empty ones are skipped if others have text.
fn usable_files(patterns: &[PathBuf], rules: TextRules) -> Result<FoundFiles, DataError> {
    let FoundFiles { files, mut passed_over } = find_text(patterns, rules)?;
    let mut usable = Vec::new();
    let mut first_empty = None;
    for file in files {
        match file.check(rules) {
            Ok(()) => usable.push(file),
            Err(error @ DataError::EmptyFile { .. }) if rules > TextRules::First => {
                passed_over.add(&file.path, Reason::Empty);
                first_empty.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first_empty.filter(|_| usable.is_empty()) {
        Some(error) => Err(error),
        None => Ok(FoundFiles { files: usable, passed_over }),
    }
}

fn read_files(
    files: &[SourceFile],
    reader: &mut DocumentReader,
    mut encoder: Encoder<'_>,
    watch: &mut Watch<'_>,
) -> Result<Encoded, DataError> {
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let mut before = 0;
    for file in files {
        reader.read(file, &mut |piece, file_bytes| {
            if encoder.push(piece)? {
                let done = before + file_bytes;
                encoder.set_share_read(done as f64 / total as f64);
                report_progress(watch, "reading text (bytes)", done, total)?;
            }
            Ok(())
        })?;
        file.check_unchanged()?;
        before += file.bytes;
        report_progress(watch, "reading text (bytes)", before, total)?;
    }
    encoder.finish()
}

fn generate(
    seed: u64,
    tokens: u64,
    encoder: Encoder<'_>,
    report: &mut PrepareReport,
    watch: &mut Watch<'_>,
) -> Result<Encoded, DataError> {
    let mut encoder = encoder.with_limit(tokens);
    for document in Grammar::built_in().documents(seed) {
        report.documents += 1;
        report.text_bytes += document.len() as u64;
        if encoder.push(Piece::whole(document))? {
            report_progress(watch, "generating text (tokens)", encoder.tokens(), tokens)?;
            if encoder.tokens() >= tokens {
                break;
            }
        }
    }
    encoder.finish()
}

/// Compares prepared tokens with their hashes before anything is trained on them, unless that would
/// take minutes.
fn check_content(streams: &[TokenStream], watch: &mut Watch<'_>) -> Result<(), DataError> {
    for stream in streams.iter().filter(|stream| stream.bytes() <= CHECKED_AT_START) {
        stream.check_all(&mut |done, total| {
            watch("checking prepared tokens (bytes)", done, Some(total))
        })?;
    }
    Ok(())
}

fn report_progress(
    watch: &mut Watch<'_>,
    activity: &str,
    done: u64,
    total: u64,
) -> Result<(), DataError> {
    match watch(activity, done, Some(total)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Interrupted),
    }
}

fn generated_training_tokens(request: &PrepareRequest<'_>) -> u64 {
    let tokens = request.generated_tokens.max(1);
    tokens.checked_next_multiple_of(request.block_tokens).unwrap_or(tokens)
}

/// Free space required for `bytes`, with a margin: a completely full disk stops everybody else too.
fn with_margin(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 20)
}

/// Bytes that are free on the disk of `folder`, which need not exist yet.
fn free_bytes(folder: &Path) -> Option<u64> {
    // The ancestors of a relative path end with the empty path, which means the current folder.
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A share of `tokens`, at least one block.
fn share_of(share: f64, tokens: u64, block_tokens: u64) -> u64 {
    ((tokens as f64 * share).round() as u64).max(block_tokens)
}

fn check_length(
    part: &'static str,
    stream: &TokenStream,
    request: &PrepareRequest<'_>,
) -> Result<(), DataError> {
    let (tokens, block_tokens) = (stream.len(), request.block_tokens);
    if tokens >= block_tokens {
        Ok(())
    } else {
        Err(DataError::TooLittleText { part, tokens, needed: block_tokens, block_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Count, Share};

    #[test]
    fn files_whose_tokens_may_not_fit_on_the_disk_are_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "a".repeat(1000)).unwrap();
        let config = DataConfig {
            files: Some(vec![folder.path().join("a.txt")]),
            generator: None,
            validation_share: Some(Share::new(0.1).unwrap()),
            validation_files: None,
            tokenizer: "bytes".into(),
            text_field: "text".into(),
            add_bos: true,
            add_eos: false,
            max_document_words: Count(10_000),
            max_bad_records: 0.0,
            max_lost_text: 0.05,
            shuffle: true,
            block_tokens: None,
        };
        let request = PrepareRequest {
            data: &config,
            seed: 1,
            generated_tokens: 0,
            block_tokens: 8,
            cache: Path::new("/cache"),
            trained_on: None,
            rules: TextRules::Current,
        };
        let inputs = Inputs::find(&config).unwrap();
        // 1002 tokens of two bytes, and a twentieth on top.
        assert_eq!(inputs.check_space(&request, 2104).unwrap(), None);
        let warning = inputs.check_space(&request, 2103).unwrap();
        assert_eq!(
            warning.as_deref(),
            Some(
                "the prepared tokens may take up to 2.1 kB in /cache, but only 2.1 kB is free \
                 there"
            )
        );
    }
}
