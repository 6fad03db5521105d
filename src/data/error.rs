//! Why text cannot become tokens.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::data::BadRecord;

/// Why text cannot become tokens; the variants carry the facts, [`DataError::hint`] says what to do.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file, folder or pattern of the configuration leads to no text.
    #[error("{} matches no text file", .pattern.display())]
    NothingMatches {
        /// As it was written.
        pattern: PathBuf,
    },
    /// The operating system refuses to read.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file without a single byte.
    #[error("{} is empty", .path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A file that holds something else than UTF-8 text.
    #[error("{} is not text: {fault} at byte {offset}", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where, counted from 0.
        offset: u64,
        /// What is there.
        fault: TextFault,
    },
    /// A file in a format that is not read.
    #[error("{} has a format that is not read", .path.display())]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
    },
    /// A `.json` file breaks off or is malformed outside its records.
    #[error("{}:{line}:{column} is not valid JSON: {reason}", .path.display())]
    BrokenJson {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// What the parser says.
        reason: String,
    },
    /// More broken records than allowed.
    #[error("{bad} of {records} records are broken, more than data.max_bad_records = {limit}; the first is {first}")]
    TooManyBadRecords {
        /// Broken records.
        bad: u64,
        /// Records read.
        records: u64,
        /// The share that is allowed.
        limit: f64,
        /// The first broken one.
        first: BadRecord,
    },
    /// A file changed while it was read.
    #[error("{} changed while it was being read", .path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// A file is trained on and evaluated on.
    #[error("{} is both training and validation text", .path.display())]
    SharedFile {
        /// The file.
        path: PathBuf,
    },
    /// The text is shorter than what has to be cut from it.
    #[error("the {part} text has {tokens} tokens, but at least {needed} are needed (one block has {block_tokens})")]
    TooLittleText {
        /// `"whole"`, `"training"` or `"validation"`.
        part: &'static str,
        /// Tokens there are.
        tokens: u64,
        /// Tokens needed.
        needed: u64,
        /// Tokens of a block.
        block_tokens: u64,
    },
    /// The tokenizer does not load.
    #[error("tokenizer {choice:?} cannot be used: {reason}")]
    BadTokenizer {
        /// As it was chosen.
        choice: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A special token is wanted that the tokenizer does not have.
    #[error("tokenizer {choice:?} has no {token} token, but {key} = true")]
    NoSpecialToken {
        /// As it was chosen.
        choice: String,
        /// What is missing, in words.
        token: &'static str,
        /// The key that wants it.
        key: &'static str,
    },
    /// The tokenizer rejects a text.
    #[error("the tokenizer failed on a document: {reason}")]
    Encode {
        /// What the tokenizer says.
        reason: String,
    },
    /// There is no room for the tokens.
    #[error("no space left for {}, which needs about {needed} bytes", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
        /// Its size when complete, estimated.
        needed: u64,
    },
    /// The operating system refuses to write.
    #[error("{} cannot be written: {source}", .path.display())]
    Unwritable {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file would be overwritten.
    #[error("{} exists", .path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The vocabulary has no room for what every byte-level tokenizer needs.
    #[error("a vocabulary of {vocab_size} tokens is too small: {minimum} are taken by single bytes and special tokens")]
    VocabularyTooSmall {
        /// The size asked for.
        vocab_size: usize,
        /// The smallest size.
        minimum: usize,
    },
    /// The tokenizer trainer counts in 32 bits.
    #[error("the files hold {bytes} bytes, more than the {limit} that a tokenizer is trained on")]
    TooMuchText {
        /// Bytes found.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Somebody asked to stop.
    #[error("preparing the text was interrupted")]
    Interrupted,
}

/// What makes a file something else than text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextFault {
    /// Text has no NUL.
    #[error("a NUL byte")]
    Nul,
    /// Bytes that no UTF-8 has.
    #[error("bytes that are not UTF-8")]
    NotUtf8,
}

impl DataError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NothingMatches { .. } => "check the path; folders are searched for .txt, .md, .jsonl and .json, and patterns know *, ? and **".into(),
            Self::Unreadable { path, .. } => format!("try: ls -l {}", quoted(path)),
            Self::EmptyFile { .. } => "remove it, or leave it out of data.files".into(),
            Self::NotText { fault: TextFault::Nul, .. } => "leave it out of data.files; only text is read".into(),
            Self::NotText { path, .. } => format!("convert it: iconv -f LATIN1 -t UTF-8 {0} > {0}.utf8", quoted(path)),
            Self::UnsupportedFormat { path } => unsupported_hint(path),
            Self::BrokenJson { .. } => "a .json file holds one array, or one object per line".into(),
            Self::TooManyBadRecords { .. } => "repair the file, check data.text_field, or raise data.max_bad_records".into(),
            Self::FileChanged { .. } => "wait until nothing writes to it, then start again".into(),
            Self::SharedFile { .. } => "leave it out of data.files, or use data.validation_share instead of data.validation_files".into(),
            Self::TooLittleText { .. } => "give more text, or lower training.context_length".into(),
            Self::BadTokenizer { .. } => "set data.tokenizer to \"bytes\", \"demo\", or the path of a tokenizer.json".into(),
            Self::NoSpecialToken { key, .. } => format!("set {key} = false, or choose another data.tokenizer"),
            Self::Encode { .. } => "try data.tokenizer = \"bytes\", which takes any text".into(),
            Self::DiskFull { path, .. } => format!("make room, then start again: df -h {}", quoted(path.parent().unwrap_or(path))),
            Self::Unwritable { path, .. } => format!("check the permissions: ls -ld {}", quoted(path.parent().unwrap_or(path))),
            Self::Exists { .. } => "choose another name, or add --force".into(),
            Self::VocabularyTooSmall { minimum, .. } => format!("use a size of at least {minimum}, like 1024"),
            Self::TooMuchText { .. } => "train the tokenizer on a sample of the files".into(),
            Self::Interrupted => "start again: the same command goes on".into(),
        }
    }

    /// Whether the user asked for something impossible, rather than the disk or the system refusing something possible.
    #[must_use]
    pub fn is_users(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::DiskFull { .. } | Self::Unwritable { .. } | Self::Interrupted => false,
            _ => true,
        }
    }

    /// Sorts an error of writing `path`, whose complete size is about `needed` bytes.
    pub(crate) fn writing(path: &Path, needed: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned(), needed },
            _ => Self::Unwritable { path: path.to_owned(), source },
        }
    }

    /// Wraps an error of reading `path`.
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}

fn unsupported_hint(path: &Path) -> String {
    let unpacked = path.with_extension("");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => format!("this version reads text and JSON lines; unpack it: zstd -d {} -o {}", quoted(path), quoted(&unpacked)),
        Some("gz") => format!("this version reads text and JSON lines; unpack it: gunzip -k {}", quoted(path)),
        Some("parquet") => "this version reads text and JSON lines; convert it to .jsonl first".into(),
        _ => "files end in .txt, .md, .jsonl or .json; rename it if it is one of these".into(),
    }
}

/// Quotes a path for a shell if it needs it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
