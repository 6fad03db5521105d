//! Evaluates a model on the documents of a task.
//!
//! Documents are encoded on all cores, in small groups, and scored in order by a [`Score`].
//! Start at [`evaluate`].

use rayon::prelude::*;
use thiserror::Error;

use crate::tasks::result::{Answer, Measured};
use crate::tasks::windows::blocks;
use crate::tasks::{
    Documents, LoadedTask, Question, Scored, Task, TaskEncoder, TaskError, TaskResult, Text,
};

/// Approximate number of ids per batch: enough to sort, few enough for stops and progress.
const IDS_AT_ONCE: usize = 16_384;
/// Documents encoded at a time.
const DOCUMENTS_AT_ONCE: usize = 128;
/// Maximum block length of the paper's evaluation.
const PAPER_BLOCK: usize = 2048;

/// Scores continuations.
pub trait Score {
    /// Error of the scorer.
    type Error;

    /// For each request the sum of the log-probabilities of its scored ids (natural logarithm);
    /// `None` if stopped.
    ///
    /// Adjacent requests often share a prefix.
    ///
    /// # Errors
    /// When scoring fails.
    fn score(&mut self, requests: &[Scored]) -> Result<Option<Vec<f64>>, Self::Error>;
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum EvaluateError<E> {
    /// An error of a document.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// An error of the model.
    #[error("{0}")]
    Score(E),
}

/// Progress of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TaskProgress {
    /// Documents done; in the paper's perplexity, blocks.
    pub done: usize,
    /// Total documents.
    pub total: usize,
    /// Share of the work done, including partially scored documents.
    pub share: f64,
}

/// Evaluates a model on `task`; `None` if stopped.
///
/// # Errors
/// When a document does not fit the model, or the model fails.
pub fn evaluate<S: Score>(
    task: &LoadedTask,
    encoder: &TaskEncoder<'_>,
    scorer: &mut S,
    progress: &mut dyn FnMut(TaskProgress),
) -> Result<Option<TaskResult>, EvaluateError<S::Error>> {
    let name = task.task.name();
    let measured = match &task.documents {
        Documents::Questions(questions) => {
            let encode = |doc_id: usize| {
                questions[doc_id]
                    .requests()
                    .iter()
                    .map(|request| encoder.scored(request, &name, doc_id))
                    .collect()
            };
            let answers = ask(&name, questions.len(), &encode, scorer, progress)?;
            answers.map(|answers| {
                Measured::of_answers(
                    questions
                        .iter()
                        .zip(answers)
                        .map(|(question, answer)| judged(question, answer.sums)),
                )
            })
        }
        Documents::Texts(texts) if task.task == Task::WikitextPaper => {
            let (blocks, length) = paper_blocks(texts, encoder)?;
            let answers =
                ask(&name, blocks.len(), &|idx| Ok(vec![blocks[idx].clone()]), scorer, progress)?;
            answers.map(|answers| {
                Measured::of_blocks(answers.into_iter().flat_map(|answer| answer.sums), length - 1)
            })
        }
        Documents::Texts(texts) => {
            let answers = ask(
                &name,
                texts.len(),
                &|idx| encoder.rolling(&texts[idx].text),
                scorer,
                progress,
            )?;
            answers.map(|answers| {
                let num_tokens = answers.iter().map(|answer| answer.num_scored).sum();
                let sums = answers.iter().map(|answer| answer.sums.iter().sum());
                Measured::of_texts(
                    texts,
                    sums,
                    (matches!(task.task, Task::Text(_))).then_some(num_tokens),
                )
            })
        }
    };
    Ok(measured.map(|measured| TaskResult::new(task, measured)))
}

/// Checks that a model can score every document of `task`, before anything is computed.
///
/// # Errors
/// The first document that does not fit.
pub fn check_fit(task: &LoadedTask, encoder: &TaskEncoder<'_>) -> Result<(), TaskError> {
    match &task.documents {
        Documents::Questions(questions) => {
            let name = task.task.name();
            let check = |(doc_id, question): (usize, &Question)| {
                question
                    .requests()
                    .iter()
                    .find_map(|request| encoder.scored(request, &name, doc_id).err())
            };
            questions.par_iter().enumerate().find_map_first(check).map_or(Ok(()), Err)
        }
        Documents::Texts(texts) if task.task == Task::WikitextPaper => {
            paper_blocks(texts, encoder).map(drop)
        }
        // Texts of any length fit; only a tokenizer without special tokens does not.
        Documents::Texts(_) => encoder.rolling("").map(drop),
    }
}

fn judged(question: &Question, log_likelihoods: Vec<f64>) -> Answer {
    let judgement = question.judge(&log_likelihoods);
    Answer::Choice { log_likelihoods, judgement }
}

/// The blocks of the paper's perplexity, and their length: all pages concatenated, an incomplete
/// last block dropped.
fn paper_blocks(
    texts: &[Text],
    encoder: &TaskEncoder<'_>,
) -> Result<(Vec<Scored>, usize), TaskError> {
    let pages =
        texts.par_iter().map(|text| encoder.page(&text.text)).collect::<Result<Vec<_>, _>>()?;
    let (ids, block) = (pages.concat(), encoder.max_length().min(PAPER_BLOCK));
    let blocks = blocks(&ids, block);
    if blocks.is_empty() {
        return Err(TaskError::TextTooShort {
            task: Task::WikitextPaper.name(),
            tokens: ids.len(),
            block,
        });
    }
    Ok((blocks, block))
}

/// The scores of a document.
#[derive(Debug, Clone, Default)]
struct Said {
    /// One per request.
    sums: Vec<f64>,
    /// Number of scored ids.
    num_scored: u64,
}

type Encode<'a> = dyn Fn(usize) -> Result<Vec<Scored>, TaskError> + Sync + 'a;

/// Scores `total` documents with `scorer`, in order; the requests of a document stay together
/// unless there are very many.
///
/// A non-finite score is an error: otherwise it would count like any other choice.
fn ask<S: Score>(
    task: &str,
    total: usize,
    encode: &Encode<'_>,
    scorer: &mut S,
    progress: &mut dyn FnMut(TaskProgress),
) -> Result<Option<Vec<Said>>, EvaluateError<S::Error>> {
    let mut said = vec![Said::default(); total];
    for start in (0..total).step_by(DOCUMENTS_AT_ONCE) {
        let end = total.min(start + DOCUMENTS_AT_ONCE);
        let encoded = (start..end).into_par_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = encoded.iter().map(Vec::len).collect();
        // For each request its document, and how many requests of that document precede it.
        let owners: Vec<(usize, usize)> = lengths
            .iter()
            .enumerate()
            .flat_map(|(idx, length)| (0..*length).map(move |before| (idx, before)))
            .collect();
        let requests: Vec<Scored> = encoded.into_iter().flatten().collect();
        for (from, to) in portions(&requests, &owners) {
            let Some(sums) = scorer.score(&requests[from..to]).map_err(EvaluateError::Score)?
            else {
                return Ok(None);
            };
            assert_eq!(sums.len(), to - from, "a scorer answers every request");
            for ((request, (idx, _)), sum) in
                requests[from..to].iter().zip(&owners[from..to]).zip(sums)
            {
                if !sum.is_finite() {
                    return Err(TaskError::NotFinite {
                        task: task.into(),
                        doc_id: start + idx,
                        value: sum,
                    }
                    .into());
                }
                said[start + idx].sums.push(sum);
                said[start + idx].num_scored += request.num_scored as u64;
            }
            let (idx, before) = owners[to - 1];
            let part = (before + 1) as f64 / lengths[idx] as f64;
            let done = start + idx + usize::from(before + 1 == lengths[idx]);
            progress(TaskProgress {
                done,
                total,
                share: ((start + idx) as f64 + part) / total as f64,
            });
        }
    }
    Ok(Some(said))
}

/// Ranges of requests to score at once; a document is only split if it is too long for one range.
fn portions(requests: &[Scored], owners: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut document_ids = vec![0; owners.last().map_or(0, |(document, _)| document + 1)];
    for (request, (document, _)) in requests.iter().zip(owners) {
        document_ids[*document] += request.ids.len();
    }
    let mut portions = Vec::new();
    let (mut from, mut ids) = (0, 0);
    for (idx, (request, (document, before))) in requests.iter().zip(owners).enumerate() {
        let next = if *before == 0 { document_ids[*document] } else { request.ids.len() };
        if idx > from && ids + next > IDS_AT_ONCE {
            portions.push((from, idx));
            (from, ids) = (idx, 0);
        }
        ids += request.ids.len();
    }
    if from < requests.len() {
        portions.push((from, requests.len()));
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_holds_whole_documents() {
        let requests: Vec<Scored> = [6000, 6000, 6000, 6000, 1, 9000, 9000, 9000]
            .iter()
            .map(|length| Scored { ids: vec![0; *length], num_scored: 1 })
            .collect();
        let owners = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (3, 2)];
        assert_eq!(portions(&requests, &owners), [(0, 2), (2, 5), (5, 6), (6, 7), (7, 8)]);
        assert_eq!(portions(&[], &[]), []);
    }
}
