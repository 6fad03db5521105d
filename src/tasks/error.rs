//! Why a task cannot be evaluated.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::data::DataError;

/// Why a task cannot be evaluated; the variants carry the facts, [`TaskError::hint`] suggests a fix.
#[derive(Debug, Error)]
pub enum TaskError {
    /// No task of that name.
    #[error("there is no task {name:?}")]
    UnknownTask {
        /// Name as written.
        name: String,
        /// Name that was probably meant.
        nearest: Option<String>,
    },
    /// An empty list of tasks.
    #[error("no task is named")]
    NoTask,
    /// The documents of a task are to be read from nowhere.
    #[error("{task} needs a folder with its documents")]
    NoFolder {
        /// Name of the task.
        task: String,
    },
    /// The folder of task files does not exist, or is no folder.
    #[error("{} is not a folder", .path.display())]
    NotFolder {
        /// Path as given.
        path: PathBuf,
    },
    /// The folder of task files lacks one.
    #[error("{} has no file for {task}", .folder.display())]
    NoFile {
        /// Folder that was searched.
        folder: PathBuf,
        /// Name of the task.
        task: String,
        /// What the file may be called.
        names: Vec<&'static str>,
    },
    /// Several files could be the one of a task.
    #[error("both {} and {} could be the file for {task}", .first.display(), .second.display())]
    SeveralFiles {
        /// Name of the task.
        task: String,
        /// One of them.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// The operating system refuses to read, or it is not text.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// What is in the way.
        source: io::Error,
    },
    /// A file without a single document.
    #[error("{} has no documents", .path.display())]
    NoDocuments {
        /// Path of the file.
        path: PathBuf,
    },
    /// A document that is not as its task needs it.
    #[error("{}:{line}: {problem}", .path.display())]
    BadRecord {
        /// Path of the file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// What is wrong, with the name of the field.
        problem: String,
    },
    /// The file of labels does not fit the file of documents.
    #[error("{} has {labels} labels for {documents} documents", .path.display())]
    LabelCount {
        /// File of labels.
        path: PathBuf,
        /// Its lines.
        labels: usize,
        /// Documents that need one.
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
    /// There are fewer examples than shall stand before a question.
    #[error("{} has {found} examples of {subject}, but {wanted} are to stand before each question", .path.display())]
    TooFewExamples {
        /// Path of the file.
        path: PathBuf,
        /// The subject.
        subject: &'static str,
        /// Examples there are.
        found: usize,
        /// Examples wanted.
        wanted: usize,
    },
    /// Examples are wanted for a task that has none.
    #[error("{task} has no examples to show before a question")]
    NoExamples {
        /// Name of the task.
        task: String,
    },
    /// What is to be predicted does not fit the network.
    #[error("{task}, document {doc_id}: the continuation has {tokens} tokens, but the network reads {max_length} at once")]
    ContinuationTooLong {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// Tokens of the continuation.
        tokens: usize,
        /// Tokens that the network reads at once.
        max_length: usize,
    },
    /// The tokenizer makes nothing of a context or a continuation.
    #[error("{task}, document {doc_id}: the tokenizer gives the {part} no token")]
    NoTokens {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// `"context"` or `"continuation"`.
        part: &'static str,
    },
    /// The network's answer is no number.
    #[error("{task}, document {doc_id}: the network's log-probability is {value}")]
    NotFinite {
        /// Name of the task.
        task: String,
        /// Number of the document, counted from 0.
        doc_id: usize,
        /// What it is instead.
        value: f64,
    },
    /// The tokenizer has no token that could stand before a text.
    #[error("the tokenizer has no token that {purpose}")]
    NoSpecialToken {
        /// What it is needed for.
        purpose: &'static str,
    },
    /// There is too little text for a single block.
    #[error("{task} has {tokens} tokens, but a block has {block}")]
    TextTooShort {
        /// Name of the task.
        task: String,
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a block.
        block: usize,
    },
    /// A text file cannot be read, or its text cannot become tokens.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl TaskError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownTask { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::UnknownTask { nearest: None, .. } | Self::NoTask => {
                "use paper for all of the paper's, or hellaswag, piqa, winogrande, arc_easy, arc_challenge, mmlu, wikitext-paper, wikitext or text:FILE".into()
            }
            Self::NoFolder { .. } => "name the folder of the task files with --task-data".into(),
            Self::NotFolder { .. } => "check the path after --task-data".into(),
            Self::NoFile { names, .. } => format!("put it there or in a folder of the task's name, as {}", names.join(" or ")),
            Self::SeveralFiles { .. } => "keep one of them in the folder".into(),
            Self::Unreadable { .. } => "check that it is a text file and that you may read it".into(),
            Self::NoDocuments { .. } | Self::BadRecord { .. } | Self::LabelCount { .. } => "get the file again from where the data set is published".into(),
            Self::NoSubject { .. } => "use the file of all subjects, or name the subjects that it has, like mmlu_anatomy".into(),
            Self::TooFewExamples { found, .. } => format!("use --num-fewshot {found} or less"),
            Self::NoExamples { .. } => "leave out --num-fewshot, or evaluate mmlu in a command of its own".into(),
            Self::ContinuationTooLong { .. } => "evaluate a network with a longer context, or leave this task out; lm-eval refuses this document, too".into(),
            Self::NotFinite { .. } => "the weights are damaged or their training diverged: use an earlier checkpoint".into(),
            Self::NoTokens { .. } => "lm-eval refuses this document, too; use a tokenizer that gives every text a token".into(),
            Self::NoSpecialToken { .. } => "use a network whose tokenizer has one, like <s> or </s>".into(),
            Self::TextTooShort { .. } => "use a longer text or a smaller --max-length".into(),
            Self::Data(error) => error.hint(),
        }
    }

    /// Whether the user has to change the request, as opposed to a failure of the disk or the system.
    #[must_use]
    pub fn is_user_error(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData),
            Self::Data(error) => error.is_user_error(),
            Self::NotFinite { .. } => false,
            _ => true,
        }
    }

    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}
