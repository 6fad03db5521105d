//! From a task with its documents to its result, by asking a model.
//!
//! Knows who can be asked only as a [`Score`]; documents are encoded on all cores, a few at a time, and asked about in order.
//! Start at [`evaluate`].

use rayon::prelude::*;
use thiserror::Error;

use crate::tasks::result::{Answer, Measured};
use crate::tasks::windows::blocks;
use crate::tasks::{Documents, Encoder, LoadedTask, Question, Scored, Task, TaskError, TaskResult, Text};

/// Ids that a model is asked about at once, about: enough to sort, little enough for a stop and for progress.
const IDS_AT_ONCE: usize = 16_384;
/// Documents that are encoded at once.
const DOCUMENTS_AT_ONCE: usize = 128;
/// The longest block of the paper's evaluation.
const PAPER_BLOCK: usize = 2048;

/// Whoever can say how probable the end of a sequence is.
pub trait Score {
    /// Why it cannot.
    type Error;

    /// For each request the sum of the log-probabilities of its scored ids, natural logarithms; `None` when told to stop.
    ///
    /// Neighbours often begin with the same ids.
    ///
    /// # Errors
    /// When it fails.
    fn score(&mut self, requests: &[Scored]) -> Result<Option<Vec<f64>>, Self::Error>;
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum EvaluateError<E> {
    /// Because of a document.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Because of the model.
    #[error("{0}")]
    Score(E),
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Documents that are done; blocks, in the paper's perplexity.
    pub done: usize,
    /// Documents to be done.
    pub total: usize,
    /// Share of the work that is done, a document that is half done included.
    pub share: f64,
}

/// Evaluates a model on `task`; `None` when it was told to stop.
///
/// # Errors
/// When a document does not fit the model, or the model fails.
pub fn evaluate<S: Score>(
    task: &LoadedTask,
    encoder: &Encoder<'_>,
    scorer: &mut S,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<TaskResult>, EvaluateError<S::Error>> {
    let name = task.task.name();
    let measured = match &task.documents {
        Documents::Questions(questions) => {
            let encode = |doc_id: usize| questions[doc_id].requests().iter().map(|request| encoder.scored(request, &name, doc_id)).collect();
            let answers = ask(&name, questions.len(), &encode, scorer, progress)?;
            answers.map(|answers| Measured::of_answers(questions.iter().zip(answers).map(|(question, answer)| judged(question, answer.sums))))
        }
        Documents::Texts(texts) if task.task == Task::WikitextPaper => {
            let (blocks, length) = paper_blocks(texts, encoder)?;
            let answers = ask(&name, blocks.len(), &|idx| Ok(vec![blocks[idx].clone()]), scorer, progress)?;
            answers.map(|answers| Measured::of_blocks(answers.into_iter().flat_map(|answer| answer.sums), length - 1))
        }
        Documents::Texts(texts) => {
            let answers = ask(&name, texts.len(), &|idx| encoder.rolling(&texts[idx].text), scorer, progress)?;
            answers.map(|answers| {
                let num_tokens = answers.iter().map(|answer| answer.num_scored).sum();
                let sums = answers.iter().map(|answer| answer.sums.iter().sum());
                Measured::of_texts(texts, sums, (matches!(task.task, Task::Text(_))).then_some(num_tokens))
            })
        }
    };
    Ok(measured.map(|measured| TaskResult::new(task, measured)))
}

/// Finds out whether a network can be asked about every document of `task`, before any of them is computed.
///
/// # Errors
/// With the first document that does not fit.
pub fn check_fit(task: &LoadedTask, encoder: &Encoder<'_>) -> Result<(), TaskError> {
    match &task.documents {
        Documents::Questions(questions) => {
            let name = task.task.name();
            let check = |(doc_id, question): (usize, &Question)| question.requests().iter().find_map(|request| encoder.scored(request, &name, doc_id).err());
            questions.par_iter().enumerate().find_map_first(check).map_or(Ok(()), Err)
        }
        Documents::Texts(texts) if task.task == Task::WikitextPaper => paper_blocks(texts, encoder).map(drop),
        // Texts of any length fit; only a tokenizer without special tokens does not.
        Documents::Texts(_) => encoder.rolling("").map(drop),
    }
}

fn judged(question: &Question, log_likelihoods: Vec<f64>) -> Answer {
    let judgement = question.judge(&log_likelihoods);
    Answer::Choice { log_likelihoods, judgement }
}

/// The blocks of the paper's perplexity, and their length: all pages one after the other, the last block dropped if it is not full.
fn paper_blocks(texts: &[Text], encoder: &Encoder<'_>) -> Result<(Vec<Scored>, usize), TaskError> {
    let pages = texts.par_iter().map(|text| encoder.page(&text.text)).collect::<Result<Vec<_>, _>>()?;
    let (ids, block) = (pages.concat(), encoder.max_length().min(PAPER_BLOCK));
    let blocks = blocks(&ids, block);
    if blocks.is_empty() {
        return Err(TaskError::TextTooShort { task: Task::WikitextPaper.name(), tokens: ids.len(), block });
    }
    Ok((blocks, block))
}

/// What a model said about a document.
#[derive(Debug, Clone, Default)]
struct Said {
    /// For each of its requests.
    sums: Vec<f64>,
    /// Ids that were scored.
    num_scored: u64,
}

type Encode<'a> = dyn Fn(usize) -> Result<Vec<Scored>, TaskError> + Sync + 'a;

/// Asks `scorer` about `total` documents in order; the requests of one of them stay together unless they are very many.
///
/// An answer that is not finite ends it: it would be counted as a choice like any other.
fn ask<S: Score>(
    task: &str,
    total: usize,
    encode: &Encode<'_>,
    scorer: &mut S,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Vec<Said>>, EvaluateError<S::Error>> {
    let mut said = vec![Said::default(); total];
    for start in (0..total).step_by(DOCUMENTS_AT_ONCE) {
        let end = total.min(start + DOCUMENTS_AT_ONCE);
        let encoded = (start..end).into_par_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = encoded.iter().map(Vec::len).collect();
        // For each request its document, and how many requests of that document come before it.
        let owners: Vec<(usize, usize)> = lengths.iter().enumerate().flat_map(|(idx, length)| (0..*length).map(move |before| (idx, before))).collect();
        let requests: Vec<Scored> = encoded.into_iter().flatten().collect();
        for (from, to) in portions(&requests, &owners) {
            let Some(sums) = scorer.score(&requests[from..to]).map_err(EvaluateError::Score)? else { return Ok(None) };
            assert_eq!(sums.len(), to - from, "a scorer answers every request");
            for ((request, (idx, _)), sum) in requests[from..to].iter().zip(&owners[from..to]).zip(sums) {
                if !sum.is_finite() {
                    return Err(TaskError::NotFinite { task: task.into(), doc_id: start + idx, value: sum }.into());
                }
                said[start + idx].sums.push(sum);
                said[start + idx].num_scored += request.num_scored as u64;
            }
            let (idx, before) = owners[to - 1];
            let part = (before + 1) as f64 / lengths[idx] as f64;
            let done = start + idx + usize::from(before + 1 == lengths[idx]);
            progress(Progress { done, total, share: ((start + idx) as f64 + part) / total as f64 });
        }
    }
    Ok(Some(said))
}

/// Ranges of requests that a model is asked about at once; a document is only cut if it is too long for one.
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
        let requests: Vec<Scored> =
            [6000, 6000, 6000, 6000, 1, 9000, 9000, 9000].iter().map(|length| Scored { ids: vec![0; *length], num_scored: 1 }).collect();
        let owners = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1), (3, 2)];
        assert_eq!(portions(&requests, &owners), [(0, 2), (2, 5), (5, 6), (6, 7), (7, 8)]);
        assert_eq!(portions(&[], &[]), []);
    }
}
