//! Loads the documents of a task from a folder of files.
//!
//! Selects the reader of each task. Start at [`TaskFiles::load`].

use std::path::{Path, PathBuf};

use crate::data::{DataError, DocumentOptions, DocumentReader, TextRules, find_files};
use crate::tasks::cleaning::detokenize_wikitext;
use crate::tasks::find::{Split, find_file};
use crate::tasks::mmlu_rows::{self, MmluRows};
use crate::tasks::python::num_fields;
use crate::tasks::read::{page, piqa, question};
use crate::tasks::records::{Record, RecordPlace, read_records, read_text};
use crate::tasks::{Question, Selection, Task, TaskError};

/// The folder of task files, with the files read so far.
#[derive(Debug)]
pub struct TaskFiles {
    folder: Option<PathBuf>,
    test: MmluRows,
    dev: MmluRows,
}

/// Options: number of documents and of few-shot examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Maximum number of documents per task; in MMLU, per subject.
    pub limit: Option<usize>,
    /// Few-shot examples per question.
    pub num_fewshot: usize,
}

/// A task with its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedTask {
    /// The task.
    pub task: Task,
    /// Documents to evaluate.
    pub documents: Documents,
    /// Total documents.
    pub num_available: usize,
    /// Few-shot examples per question.
    pub num_fewshot: usize,
}

/// Documents to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Documents {
    /// Questions with choices.
    Questions(Vec<Question>),
    /// Texts that are scored as a whole.
    Texts(Vec<Text>),
}

/// A text that is scored as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Text to score.
    pub text: String,
    /// Words of the original text.
    pub num_words: u64,
    /// UTF-8 bytes of the original text.
    pub num_bytes: u64,
}

impl Text {
    /// `original` after `change`, with the words and bytes of the original.
    fn new(original: String, change: Option<fn(&str) -> String>) -> Self {
        let (num_words, num_bytes) = (num_fields(&original), original.len() as u64);
        let text = match change {
            Some(change) => change(&original),
            None => original,
        };
        Self { text, num_words, num_bytes }
    }
}

impl Documents {
    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Questions(questions) => questions.len(),
            Self::Texts(texts) => texts.len(),
        }
    }

    /// Whether there are no documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl TaskFiles {
    /// Reads from `folder`; only text:FILE tasks need no folder.
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        Self {
            folder: folder.map(Path::to_owned),
            test: MmluRows::default(),
            dev: MmluRows::default(),
        }
    }

    /// Reads the documents of every selected task.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_all(
        mut self,
        selection: &Selection,
        options: LoadOptions,
    ) -> Result<Vec<LoadedTask>, TaskError> {
        selection.tasks.iter().map(|task| self.load(task, options)).collect()
    }

    /// Reads the documents of `task`.
    ///
    /// # Errors
    /// When its file is missing, or a document is malformed.
    pub fn load(&mut self, task: &Task, options: LoadOptions) -> Result<LoadedTask, TaskError> {
        if options.num_fewshot > 0 && !task.takes_examples() {
            return Err(TaskError::NoExamples { task: task.name() });
        }
        let mut documents = match task {
            Task::Text(path) => Documents::Texts(read_text_files(path)?),
            Task::Mmlu(subject) => {
                Documents::Questions(self.mmlu(task, subject, options.num_fewshot)?)
            }
            Task::Wikitext => {
                Documents::Texts(read_pages(&self.file(task)?, Some(detokenize_wikitext))?)
            }
            Task::WikitextPaper => Documents::Texts(read_pages(&self.file(task)?, None)?),
            Task::Piqa => Documents::Questions(read_piqa(&self.file(task)?)?),
            Task::HellaSwag | Task::Winogrande | Task::ArcEasy | Task::ArcChallenge => {
                Documents::Questions(read_records(&self.file(task)?, |record| {
                    question(task, record)
                })?)
            }
        };
        let num_available = documents.len();
        let limit = options.limit.unwrap_or(usize::MAX);
        match &mut documents {
            Documents::Questions(questions) => questions.truncate(limit),
            Documents::Texts(texts) => texts.truncate(limit),
        }
        Ok(LoadedTask {
            task: task.clone(),
            documents,
            num_available,
            num_fewshot: options.num_fewshot,
        })
    }

    fn folder(&self, task: &Task) -> Result<&Path, TaskError> {
        self.folder.as_deref().ok_or_else(|| TaskError::NoFolder { task: task.name() })
    }

    fn file(&self, task: &Task) -> Result<PathBuf, TaskError> {
        find_file(self.folder(task)?, task)
    }

    fn mmlu(
        &mut self,
        task: &Task,
        subject: &'static str,
        num_fewshot: usize,
    ) -> Result<Vec<Question>, TaskError> {
        let folder = self.folder(task)?.to_owned();
        let examples = if num_fewshot > 0 {
            let (path, rows) = self.dev.load(&folder, Split::Dev, subject)?;
            let too_few = || TaskError::TooFewExamples {
                path: path.to_owned(),
                subject,
                found: rows.len(),
                wanted: num_fewshot,
            };
            rows.get(..num_fewshot).ok_or_else(too_few)?
        } else {
            &[]
        };
        let (_, rows) = self.test.load(&folder, Split::Test, subject)?;
        Ok(rows.iter().map(|row| mmlu_rows::question(subject, examples, row)).collect())
    }
}

fn read_pages(path: &Path, change: Option<fn(&str) -> String>) -> Result<Vec<Text>, TaskError> {
    read_records(path, |record| Ok(Text::new(page(record)?, change)))
}

/// Reads PIQA, whose labels are in the records or in a separate file, one per line.
fn read_piqa(path: &Path) -> Result<Vec<Question>, TaskError> {
    let labels_path = path.with_file_name(format!(
        "{}-labels.lst",
        path.file_stem().unwrap_or_default().to_string_lossy()
    ));
    let labels = if labels_path.is_file() { Some(read_labels(&labels_path)?) } else { None };
    let (mut idx, mut needs_labels) = (0, false);
    let mut gold = |record: &Record<'_>| {
        idx += 1;
        match labels.as_ref().filter(|_| !record.has("label")) {
            // A short label file is reported after counting.
            Some(labels) => {
                needs_labels = true;
                Ok(labels.get(idx - 1).copied().unwrap_or_default())
            }
            None => record.choice("label", 2),
        }
    };
    let questions = read_records(path, |record| piqa(record, gold(record)?))?;
    match labels {
        Some(labels) if needs_labels && labels.len() != questions.len() => {
            Err(TaskError::LabelCount {
                path: labels_path,
                labels: labels.len(),
                documents: questions.len(),
            })
        }
        _ => Ok(questions),
    }
}

fn read_labels(path: &Path) -> Result<Vec<usize>, TaskError> {
    let text = read_text(path)?;
    let label = |(line, text): (u64, &str)| match text.trim() {
        "0" => Ok(0),
        "1" => Ok(1),
        other => Err(RecordPlace { path, line }.bad(format!(
            "the label is {:?}, not 0 or 1",
            other.chars().take(20).collect::<String>()
        ))),
    };
    (1..).zip(text.trim_end().lines()).map(label).collect()
}

/// Reads text files: each text file and each record is one document.
fn read_text_files(path: &Path) -> Result<Vec<Text>, TaskError> {
    let mut texts = Vec::new();
    let (max_document_words, rules) = (u64::MAX, TextRules::Current);
    let options = DocumentOptions {
        text_field: "text".into(),
        max_document_words,
        max_bad_records: 0.0,
        reach: 0,
        rules,
    };
    let mut reader = DocumentReader::new(options);
    for file in find_files(&[path.to_owned()])? {
        reader.read(&file, &mut |piece, _| {
            texts.push(Text::new(piece.text, None));
            Ok(())
        })?;
    }
    if texts.is_empty() {
        Err(DataError::EmptyFile { path: path.to_owned() }.into())
    } else {
        Ok(texts)
    }
}
