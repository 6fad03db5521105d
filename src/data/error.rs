//! Why text cannot be turned into tokens.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};

/// Why text cannot be turned into tokens.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file, folder or pattern of the configuration contains no text.
    #[error("{}: {}{}", .pattern.display(), nothing_found(.pattern, .passed_over), in_brackets(.passed_over))]
    NothingMatches {
        /// Pattern as written.
        pattern: PathBuf,
        /// What was found instead, one sentence per kind.
        passed_over: Vec<String>,
    },
    /// The operating system refuses to read.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// File or folder.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// A pipe, a device or a socket: reading it might never end.
    #[error("{} is {what}, not a regular file", .path.display())]
    NotRegularFile {
        /// Path with links resolved.
        path: PathBuf,
        /// What it is instead, e.g. `"a pipe"`.
        what: &'static str,
    },
    /// An empty file.
    #[error("{} is empty", .path.display())]
    EmptyFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file that is not UTF-8 text.
    #[error("{} {}", .path.display(), fault_in_words(*.fault, *.offset))]
    NotText {
        /// Path of the file.
        path: PathBuf,
        /// Byte offset, counted from 0.
        offset: u64,
        /// What was found there.
        fault: TextFault,
    },
    /// A file in a format that this version cannot read.
    #[error("{} is in a format that patchtui cannot read", .path.display())]
    UnsupportedFormat {
        /// Path of the file; its extension determines the format.
        path: PathBuf,
    },
    /// A `.json` file is truncated or malformed outside its records.
    #[error("{}:{line}:{column} is not valid JSON: {reason}", .path.display())]
    BrokenJson {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
        /// Message of the parser.
        reason: String,
    },
    /// More unusable records than allowed.
    #[error("{bad} of {records} records cannot be used (at most {} % may be bad); first: {first}", 100.0 * .limit)]
    TooManyBadRecords {
        /// Unusable records.
        bad: u64,
        /// Records read.
        records: u64,
        /// Maximum share.
        limit: f64,
        /// The first unusable record.
        first: BadRecord,
    },
    /// The tokenizer has no tokens for too much of the text.
    #[error("{what}: {:.1} % exceeds data.max_lost_text = {limit}", 100.0 * .share)]
    TextLost {
        /// What was lost, as text.
        what: String,
        /// Its share.
        share: f64,
        /// Maximum share.
        limit: f64,
    },
    /// A file changed while it was being read.
    #[error("{} changed while it was being read", .path.display())]
    FileChanged {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file is both training and validation text.
    #[error("{} is both training and validation text", .path.display())]
    SharedFile {
        /// Path with links resolved.
        path: PathBuf,
    },
    /// The text is too short.
    #[error(
        "the {part} text has {tokens} tokens, but at least {needed} are needed (a block has \
         {block_tokens})"
    )]
    TooLittleText {
        /// `"whole"`, `"training"` or `"validation"`.
        part: &'static str,
        /// Tokens of the text.
        tokens: u64,
        /// Tokens needed.
        needed: u64,
        /// Tokens of a block.
        block_tokens: u64,
    },
    /// The files are too small to contain enough tokens; detected without reading them.
    #[error(
        "the {part} text has at most {at_most} tokens, but at least {needed} are needed (a block \
         has {block_tokens})"
    )]
    FilesTooSmall {
        /// `"whole"`, `"training"` or `"validation"`.
        part: &'static str,
        /// Upper bound of its tokens.
        at_most: u64,
        /// Tokens needed.
        needed: u64,
        /// Tokens of a block.
        block_tokens: u64,
    },
    /// The tokenizer file does not exist.
    #[error("tokenizer file {} does not exist", .path.display())]
    NoTokenizerFile {
        /// Absolute path.
        path: PathBuf,
    },
    /// The tokenizer cannot be loaded.
    #[error("tokenizer {choice:?} cannot be used: {reason}")]
    BadTokenizer {
        /// Value of `data.tokenizer`.
        choice: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The configuration requires a special token that the tokenizer lacks.
    #[error("tokenizer {choice:?} has no {token} token, but {key} = true")]
    NoSpecialToken {
        /// Value of `data.tokenizer`.
        choice: String,
        /// Missing token: `"BOS"` or `"EOS"`.
        token: &'static str,
        /// Key that requires it.
        key: &'static str,
    },
    /// The tokenizer rejects a text.
    #[error("the tokenizer failed on a document: {reason}")]
    Encode {
        /// Message of the tokenizer.
        reason: String,
    },
    /// The prepared tokens would not fit on the disk; nothing was written.
    #[error("the prepared tokens need {} in {}, but only {} is free there", bytes_in_words(*.needed), .folder.display(), bytes_in_words(*.free))]
    NoRoom {
        /// Folder of prepared tokens.
        folder: PathBuf,
        /// Bytes that should be free, a margin included.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The disk became full while tokens were written.
    #[error("no space left for {}, which needs about {}", .path.display(), bytes_in_words(*.needed))]
    DiskFull {
        /// File that was being written.
        path: PathBuf,
        /// Estimated size of the complete file.
        needed: u64,
    },
    /// The operating system refuses to write.
    #[error("{} cannot be written: {source}", .path.display())]
    Unwritable {
        /// File or folder.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// A file would be overwritten.
    #[error("{} already exists", .path.display())]
    Exists {
        /// Path of the file.
        path: PathBuf,
    },
    /// The vocabulary is smaller than the minimum of a byte-level tokenizer.
    #[error(
        "a vocabulary of {vocab_size} tokens is too small: single bytes and special tokens \
         already take {minimum}"
    )]
    VocabularyTooSmall {
        /// Requested size.
        vocab_size: usize,
        /// Minimum size.
        minimum: usize,
    },
    /// The tokenizer trainer counts in 32 bits.
    #[error("the files have {}, but a tokenizer can be trained on at most {}", bytes_in_words(*.bytes), bytes_in_words(*.limit))]
    TooMuchText {
        /// Bytes found.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file of prepared tokens is damaged.
    #[error("prepared tokens {}: {problem}", .path.display())]
    DamagedTokens {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A stop was requested.
    #[error("preparing the text was interrupted")]
    Interrupted,
}

/// A record without usable text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Path of the file.
    pub path: PathBuf,
    /// Number of the record in the file, counted from 1; in a line-based file, the line.
    pub record: u64,
    /// Whether `record` counts lines.
    pub is_line: bool,
    /// Why it is unusable.
    pub reason: String,
}

/// Why a file is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TextFault {
    /// A zero byte, which text does not contain.
    #[error("a NUL byte")]
    Nul,
    /// A sequence of bytes that is not valid UTF-8.
    #[error("an invalid byte sequence")]
    NotUtf8,
    /// Text in another encoding, detected by its byte order mark or its zero bytes.
    #[error("UTF-16")]
    Utf16,
    /// Text in another encoding, detected by its byte order mark.
    #[error("UTF-32")]
    Utf32,
}

impl Advice for DataError {
    fn hint(&self, audience: Audience<'_>) -> String {
        use Audience::{Evaluation, TokenizerTraining};
        match (self, audience) {
            (Self::NotRegularFile { .. }, TokenizerTraining | Evaluation) => {
                "copy its text into a file and name that file".into()
            }
            (Self::NotText { fault: TextFault::Nul, .. }, TokenizerTraining | Evaluation) => {
                "name only files of text".into()
            }
            (Self::TooManyBadRecords { .. }, TokenizerTraining) => {
                "repair the file, or name the field of the text with --text-field".into()
            }
            (Self::TooManyBadRecords { .. }, Evaluation) => {
                "repair the file: the text of a record must be in its field \"text\"".into()
            }
            _ => self.hint_on_files(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { source, .. } if source.kind() != io::ErrorKind::NotFound => FAILED,
            Self::DiskFull { .. }
            | Self::Unwritable { .. }
            | Self::DamagedTokens { .. }
            | Self::Interrupted => FAILED,
            _ => USAGE,
        }
    }
}

impl DataError {
    /// What to do about the files of a configuration.
    fn hint_on_files(&self) -> String {
        match self {
            Self::NothingMatches { passed_over, .. } if !passed_over.is_empty() => {
                "name a file itself to train on it; folders are searched for .txt, .md, .jsonl, \
                 .ndjson and .json files"
                    .into()
            }
            Self::NothingMatches { .. } => "check the path; folders are searched for .txt, .md, \
                                            .jsonl, .ndjson and .json files, and patterns may use \
                                            *, ? and **"
                .into(),
            Self::NotRegularFile { .. } => {
                "copy its text into a file and name that file in data.files".into()
            }
            Self::Unreadable { path, .. } => format!("try: ls -l {}", quoted(path)),
            Self::EmptyFile { .. } => "name a file that contains text".into(),
            Self::NotText { fault: TextFault::Nul, .. } => {
                "remove it from data.files, which accepts only text".into()
            }
            Self::NotText { path, fault, .. } => conversion(path, *fault),
            Self::UnsupportedFormat { path } => unsupported_hint(path),
            Self::BrokenJson { .. } => {
                "a .json file holds one array, or one object per line".into()
            }
            Self::TooManyBadRecords { .. } => {
                "repair the file, check data.text_field, or raise data.max_bad_records".into()
            }
            _ => self.hint_about_tokens(),
        }
    }

    /// For a run, about text that cannot be turned into tokens.
    fn hint_about_tokens(&self) -> String {
        match self {
            Self::TextLost { .. } => "use another data.tokenizer, train one on this text \
                                      (patchtui tokenizer train FILES), or raise \
                                      data.max_lost_text"
                .into(),
            Self::FileChanged { .. } => {
                "wait until it is no longer being written, then start again".into()
            }
            Self::SharedFile { .. } => "remove it from data.files, or use data.validation_share \
                                        instead of data.validation_files"
                .into(),
            _ => self.hint_on_tokens(),
        }
    }

    /// What to do about the tokens that are made of them.
    fn hint_on_tokens(&self) -> String {
        match self {
            Self::TooLittleText { .. } | Self::FilesTooSmall { .. } => {
                "add more text to data.files, or lower training.context_length".into()
            }
            Self::NoTokenizerFile { .. } | Self::BadTokenizer { .. } => {
                "set data.tokenizer to \"bytes\", \"demo\", or the path of a tokenizer.json".into()
            }
            Self::NoSpecialToken { key, .. } => {
                format!("set {key} = false, or choose another data.tokenizer")
            }
            Self::Encode { .. } => "try data.tokenizer = \"bytes\", which accepts any text".into(),
            Self::NoRoom { .. } => "lower the budget (training.tokens, positions or steps), or \
                                    put the runs on a larger disk with --runs-dir"
                .into(),
            Self::DiskFull { path, .. } => format!(
                "free some space, then start again: df -h {}",
                quoted(path.parent().unwrap_or(path))
            ),
            Self::Unwritable { path, .. } => {
                format!("check the permissions: ls -ld {}", quoted(path.parent().unwrap_or(path)))
            }
            Self::Exists { .. } => {
                "choose another name with --output, or add --force to replace it".into()
            }
            Self::VocabularyTooSmall { minimum, .. } => {
                format!("use --vocab-size {} or more", minimum.max(&1024))
            }
            Self::TooMuchText { .. } => {
                "name fewer files; a sample of the text is enough to train a tokenizer".into()
            }
            Self::DamagedTokens { path, .. } => {
                format!(
                    "check the disk, then remove the tokens so that they are prepared again: rm \
                     -r {}",
                    quoted(path.parent().unwrap_or(path))
                )
            }
            // The others are about files.
            _ => "run the same command again".into(),
        }
    }

    /// Classifies an error from writing `path`, whose complete size is about `needed` bytes.
    pub(crate) fn writing(path: &Path, needed: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), needed }
            }
            _ => Self::Unwritable { path: path.to_owned(), source },
        }
    }

    /// Wraps an error from reading `path`.
    pub(crate) fn reading(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, record, is_line, reason } = self;
        let path = path.display();
        if *is_line {
            write!(f, "{path}:{record}: {reason}")
        } else {
            write!(f, "{path}, record {record}: {reason}")
        }
    }
}

fn fault_in_words(fault: TextFault, offset: u64) -> String {
    match fault {
        TextFault::Nul | TextFault::NotUtf8 => {
            format!("is not UTF-8 text: {fault} at byte {offset}")
        }
        TextFault::Utf16 | TextFault::Utf32 => format!("is {fault} text, not UTF-8"),
    }
}

/// How to convert a file to UTF-8, under a name with a text extension.
fn conversion(path: &Path, fault: TextFault) -> String {
    let encoding = match fault {
        TextFault::Utf16 => "UTF-16",
        TextFault::Utf32 => "UTF-32",
        TextFault::Nul | TextFault::NotUtf8 => "LATIN1",
    };
    let ending = path
        .extension()
        .map_or_else(|| "txt".into(), |ending| ending.to_string_lossy().into_owned());
    format!(
        "convert it: iconv -f {encoding} -t UTF-8 {} > {}",
        quoted(path),
        quoted(&path.with_extension(format!("utf8.{ending}")))
    )
}

/// What is wrong with a pattern that leads to no text.
fn nothing_found(pattern: &Path, passed_over: &[String]) -> &'static str {
    let is_missing = passed_over.is_empty()
        && !pattern.to_string_lossy().contains(['*', '?'])
        && !pattern.exists();
    if is_missing { "no such file or folder" } else { "no text files found" }
}

fn in_brackets(notes: &[String]) -> String {
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) }
}

fn unsupported_hint(path: &Path) -> String {
    let unpacked = path.with_extension("");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => format!(
            "this version reads text and JSON lines; unpack it: zstd -d {} -o {}",
            quoted(path),
            quoted(&unpacked)
        ),
        Some("gz") => {
            format!("this version reads text and JSON lines; unpack it: gunzip -k {}", quoted(path))
        }
        Some("parquet") => {
            "this version reads text and JSON lines; convert it to .jsonl first".into()
        }
        _ => "rename the file if it is text or JSON: names must end in .txt, .md, .jsonl, .ndjson \
              or .json"
            .into(),
    }
}

/// Formats a number of bytes: `1.2 MB`.
pub(crate) fn bytes_in_words(bytes: u64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // 999.95 would be shown as 1000.0 of the smaller unit.
    while value >= 999.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = usize::from(unit > 0);
    format!("{value:.digits$} {}", units[unit])
}

/// Quotes a path for a shell if necessary.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
