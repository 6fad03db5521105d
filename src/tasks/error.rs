//! Why a task cannot be evaluated.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::data::DataError;

/// Why a task cannot be evaluated.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Unknown task.
    #[error("there is no task {name:?}")]
    UnknownTask {
        /// Name as written.
        name: String,
        /// Name that was probably meant.
        nearest: Option<String>,
    },
    /// An empty list of tasks.
    #[error("no tasks given")]
    NoTask,
    /// No folder of task files was given.
    #[error("{task} needs a folder of task files")]
    NoFolder {
        /// Name of the task.
        task: String,
    },
    /// The folder of task files does not exist, or is not a folder.
    #[error("{} is not a folder", .path.display())]
    NotFolder {
        /// Path as given.
        path: PathBuf,
    },
    /// The folder of task files lacks a file.
    #[error("{} has no file for {task}", .folder.display())]
    NoFile {
        /// Folder that was searched.
        folder: PathBuf,
        /// Name of the task.
        task: String,
        /// Accepted file names.
        names: Vec<&'static str>,
    },
    /// Several files match a task.
    #[error("both {} and {} match {task}", .first.display(), .second.display())]
    SeveralFiles {
        /// Name of the task.
        task: String,
        /// One of them.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// The file cannot be read, or is not text.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error.
        source: io::Error,
    },
    /// A file without documents.
    #[error("{} has no documents", .path.display())]
    NoDocuments {
        /// Path of the file.
        path: PathBuf,
    },
    /// A malformed document.
    #[error("{}:{line}: {problem}", .path.display())]
    BadRecord {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// What is wrong, with the name of the field.
        problem: String,
    },
    /// The numbers of labels and documents differ.
    #[error("{} has {labels} labels for {documents} documents", .path.display())]
    LabelCount {
        /// File of labels.
        path: PathBuf,
        /// Number of labels.
        labels: usize,
        /// Number of documents.
        documents: usize,
    },
    /// The file has no document of a subject.
    #[error("{} has no document of the subject {subject}", .path.display())]
    NoSubject {
        /// Path of the file.
        path: PathBuf,
        /// The subject.
        subject: &'static str,
    },
    /// There are fewer few-shot examples than requested.
    #[error("{} has {found} examples of {subject}, but --num-fewshot is {wanted}", .path.display())]
    TooFewExamples {
        /// Path of the file.
        path: PathBuf,
        /// The subject.
        subject: &'static str,
        /// Available examples.
        found: usize,
        /// Requested examples.
        wanted: usize,
    },
    /// Few-shot examples were requested for a task that has none.
    #[error("{task} has no few-shot examples")]
    NoExamples {
        /// Name of the task.
        task: String,
    },
    /// The continuation does not fit into the context length.
    #[error(
        "{task}, document {doc_id}: the continuation has {tokens} tokens, but the context length \
         is {max_length}"
    )]
    ContinuationTooLong {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// Tokens of the continuation.
        tokens: usize,
        /// Context length.
        max_length: usize,
    },
    /// The tokenizer encodes a context or a continuation to nothing.
    #[error("{task}, document {doc_id}: the tokenizer encodes the {part} into no tokens")]
    NoTokens {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// `"context"` or `"continuation"`.
        part: &'static str,
    },
    /// The model's log-probability is not finite.
    #[error("{task}, document {doc_id}: the log-probability of the model is {value}")]
    NotFinite {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// The value.
        value: f64,
    },
    /// The tokenizer has no token to put before a text.
    #[error("the tokenizer has no token that {purpose}")]
    NoSpecialToken {
        /// Purpose of the token.
        purpose: &'static str,
    },
    /// The text is shorter than one block.
    #[error("{task} has {tokens} tokens, but a block has {block}")]
    TextTooShort {
        /// Name of the task.
        task: String,
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a block.
        block: usize,
    },
    /// A text file cannot be read, or its text cannot be tokenized.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl Advice for TaskError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::UnknownTask { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::UnknownTask { nearest: None, .. } | Self::NoTask => {
                "use paper for the seven tasks of the paper, or hellaswag, piqa, winogrande, \
                 arc_easy, arc_challenge, mmlu, wikitext-paper, wikitext or text:FILE"
                    .into()
            }
            Self::NoFolder { .. } => "name the folder of the task files with --task-data".into(),
            Self::NotFolder { .. } => "check the path after --task-data".into(),
            Self::NoFile { names, .. } => format!(
                "put it there, or in a folder named after the task, as {}",
                names.join(" or ")
            ),
            Self::SeveralFiles { .. } => "keep one of them in the folder".into(),
            Self::Unreadable { .. } => {
                "check that it is a text file and that you may read it".into()
            }
            Self::NoDocuments { .. } | Self::BadRecord { .. } | Self::LabelCount { .. } => {
                "download the file again from the publisher of the dataset".into()
            }
            Self::NoSubject { .. } => "use the file of all subjects, or name only subjects that \
                                       it contains, e.g. mmlu_anatomy"
                .into(),
            Self::TooFewExamples { found, .. } => format!("use --num-fewshot {found} or less"),
            Self::NoExamples { .. } => {
                "remove --num-fewshot, or evaluate mmlu in a separate command".into()
            }
            // A run reads its texts in its own context length; there is no flag for it.
            Self::ContinuationTooLong { tokens, .. } if matches!(audience, Audience::Run(_)) => {
                format!(
                    "under another --name, raise training.context_length to {tokens} or more, or \
                     remove the task from tasks.names"
                )
            }
            Self::ContinuationTooLong { .. } => "use a model with a longer context, or skip this \
                                                 task; lm-eval rejects this document, too"
                .into(),
            Self::NotFinite { .. } => "the weights are damaged or their training diverged: use an \
                                       earlier checkpoint"
                .into(),
            Self::NoTokens { .. } => {
                "use a tokenizer that encodes any text; lm-eval rejects this document, too".into()
            }
            Self::NoSpecialToken { .. } => {
                "use a model whose tokenizer has one, e.g. <s> or </s>".into()
            }
            Self::TextTooShort { .. } => "use a longer text or a smaller --max-length".into(),
            Self::Data(error) => error.hint(Audience::Evaluation),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Unreadable { source, .. } => match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData => USAGE,
                _ => FAILED,
            },
            Self::Data(error) => error.exit_code(),
            Self::NotFinite { .. } => FAILED,
            _ => USAGE,
        }
    }
}

impl TaskError {
    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}
