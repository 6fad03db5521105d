//! The questions of MMLU: reads them from JSON lines or from the published tables, and builds their
//! prompts.
//!
//! Start at [`MmluRows::load`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::tasks::find::{Split, find_all_subjects, find_subject};
use crate::tasks::mmlu::subject;
use crate::tasks::python::strip;
use crate::tasks::records::{Record, RecordPlace, read_records, read_text};
use crate::tasks::{Prompt, Question, TaskError};

/// The letters of the choices, which are also the continuations to score.
const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// A question with its choices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MmluRow {
    question: String,
    choices: [String; 4],
    gold: usize,
}

/// The questions of some subjects, from one split.
#[derive(Debug, Default)]
pub(super) struct MmluRows {
    /// Questions and file, by subject.
    rows: BTreeMap<&'static str, (PathBuf, Vec<MmluRow>)>,
    /// The file of all subjects, if it was read.
    path: Option<PathBuf>,
}

impl MmluRows {
    /// The questions of `subject` in `folder`, and their file.
    ///
    /// # Errors
    /// When there are none, or a question cannot be read.
    pub(super) fn load(
        &mut self,
        folder: &Path,
        split: Split,
        subject: &'static str,
    ) -> Result<(&Path, &[MmluRow]), TaskError> {
        if !self.rows.contains_key(subject) && self.path.is_none() {
            if let Some(path) = find_all_subjects(folder, split)? {
                self.read_all(path)?;
            } else {
                let path = find_subject(folder, split, subject)?;
                let rows = read_table(&path)?;
                self.rows.insert(subject, (path, rows));
            }
        }
        match (self.rows.get(subject), &self.path) {
            (Some((path, rows)), _) => Ok((path, rows)),
            (None, path) => {
                Err(TaskError::NoSubject { path: path.clone().unwrap_or_default(), subject })
            }
        }
    }

    fn read_all(&mut self, path: PathBuf) -> Result<(), TaskError> {
        for (subject, row) in read_records(&path, read_row)? {
            self.rows.entry(subject).or_insert_with(|| (path.clone(), Vec::new())).1.push(row);
        }
        self.path = Some(path);
        Ok(())
    }
}

/// The question of `row` after the few-shot `examples`.
pub(super) fn question(subject: &str, examples: &[MmluRow], row: &MmluRow) -> Question {
    let mut context = format!(
        "The following are multiple choice questions (with answers) about {}.\n\n",
        subject.replace('_', " ")
    );
    for example in examples {
        context.extend([&asked(example), " ", LETTERS[example.gold], "\n\n"]);
    }
    context += &asked(row);
    Question {
        prompt: Prompt::Continuations { context, choices: LETTERS.map(str::to_owned).to_vec() },
        gold: row.gold,
    }
}

fn asked(row: &MmluRow) -> String {
    let [a, b, c, d] = &row.choices;
    format!("{}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:", strip(&row.question))
}

fn read_row(record: &Record<'_>) -> Result<(&'static str, MmluRow), TaskError> {
    let name = record.text("subject")?;
    let subject = subject(&name)
        .ok_or_else(|| record.wrong("subject", &format!("{name:?}, which MMLU does not have")))?;
    let choices: [String; 4] = record.texts("choices")?.try_into().map_err(|texts: Vec<_>| {
        record.wrong("choices", &format!("a list of {}, not of 4", texts.len()))
    })?;
    let letter = record.text("answer").ok().and_then(|answer| letter(&answer));
    let gold = match letter {
        Some(gold) => gold,
        None => record.choice("answer", LETTERS.len())?,
    };
    Ok((subject, MmluRow { question: record.text("question")?, choices, gold }))
}

/// Reads a published table without a header: question, four choices, letter of the answer.
fn read_table(path: &Path) -> Result<Vec<MmluRow>, TaskError> {
    let text = read_text(path)?;
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            RecordPlace { path, line }.bad("it is not a row of comma-separated values")
        })?;
        let place = RecordPlace { path, line: record.position().map_or(0, csv::Position::line) };
        let fields: Vec<&str> = record.iter().collect();
        let [question, a, b, c, d, answer] = fields[..] else {
            return Err(place.bad(format!(
                "the row has {} fields, not 6: question, four choices, answer",
                fields.len()
            )));
        };
        let gold = letter(answer).ok_or_else(|| {
            place.bad(format!(
                "the answer, field 6, is {:?}, not A, B, C or D",
                answer.chars().take(20).collect::<String>()
            ))
        })?;
        rows.push(MmluRow {
            question: question.into(),
            choices: [a, b, c, d].map(str::to_owned),
            gold,
        });
    }
    if rows.is_empty() { Err(TaskError::NoDocuments { path: path.to_owned() }) } else { Ok(rows) }
}

fn letter(text: &str) -> Option<usize> {
    LETTERS.iter().position(|letter| *letter == text.trim())
}
