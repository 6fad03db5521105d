//! Results of an evaluation: metrics with standard errors, of tasks and of groups.
//!
//! Pure arithmetic on log-likelihoods, as lm-eval does it. Start at [`TaskResult`].

use std::f64::consts::LN_2;

use crate::tasks::mmlu::Group;
use crate::tasks::{Documents, Judgement, LoadedTask, Task, Text};

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Name as in lm-eval, e.g. `"acc_norm"`.
    pub name: &'static str,
    /// Value; accuracies are between 0 and 1.
    pub value: f64,
    /// Standard error, if known.
    pub stderr: Option<f64>,
}

/// The scores of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A multiple-choice answer.
    Choice {
        /// Log-likelihood of each choice (natural logarithm).
        log_likelihoods: Vec<f64>,
        /// Whether the answer is correct.
        judgement: Judgement,
    },
    /// The log-likelihood of a text, or of a block of the paper's perplexity.
    Text(f64),
}

/// The result of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task.
    pub task: Task,
    /// Metrics.
    pub metrics: Vec<Metric>,
    /// Documents evaluated.
    pub num_documents: usize,
    /// Total documents.
    pub num_available: usize,
    /// Few-shot examples per question.
    pub num_fewshot: usize,
    /// Chance level, for tasks with choices.
    pub chance: Option<f64>,
    /// Answers in document order; in the paper's perplexity, per block.
    pub answers: Vec<Answer>,
}

/// The result of a group: all documents of its tasks are weighted equally.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupResult {
    /// The group.
    pub group: &'static Group,
    /// Metrics.
    pub metrics: Vec<Metric>,
    /// Documents evaluated.
    pub num_documents: usize,
    /// Few-shot examples per question.
    pub num_fewshot: usize,
    /// Chance level.
    pub chance: Option<f64>,
}

/// Answers, and the metrics derived from them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    metrics: Vec<Metric>,
    answers: Vec<Answer>,
}

impl TaskResult {
    pub(super) fn new(task: &LoadedTask, measured: Measured) -> Self {
        let Measured { mut metrics, answers } = measured;
        metrics.retain(|metric| metric.name != "acc_norm" || task.task.has_acc_norm());
        let num_documents = task.documents.len();
        let chance = match &task.documents {
            Documents::Questions(questions) => Some(mean(
                &questions
                    .iter()
                    .map(|question| 1.0 / question.num_choices() as f64)
                    .collect::<Vec<_>>(),
            )),
            Documents::Texts(_) => None,
        };
        Self {
            task: task.task.clone(),
            metrics,
            num_documents,
            num_available: task.num_available,
            num_fewshot: task.num_fewshot,
            chance,
            answers,
        }
    }

    /// Value of a metric.
    #[must_use]
    pub fn value(&self, metric: &str) -> Option<f64> {
        self.metrics.iter().find(|known| known.name == metric).map(|metric| metric.value)
    }
}

impl GroupResult {
    /// The result of `group`, if one of its tasks is among `results`.
    #[must_use]
    pub fn new(group: &'static Group, results: &[TaskResult]) -> Option<Self> {
        let is_part = |result: &&TaskResult| matches!(&result.task, Task::Mmlu(subject) if group.contains(subject));
        let num_fewshot = results.iter().find(is_part)?.num_fewshot;
        let chances = results
            .iter()
            .filter(is_part)
            .map(|result| result.chance.map(|chance| chance * result.num_documents as f64));
        let chance = chances.sum::<Option<f64>>();
        let parts: Vec<(f64, Metric)> = results
            .iter()
            .filter(is_part)
            .map(|result| (result.num_documents as f64, result.metrics[0]))
            .collect();
        let total: f64 = parts.iter().map(|(size, _)| size).sum();
        let value = parts.iter().map(|(size, acc)| size * acc.value).sum::<f64>() / total;
        // The pooled variance of the parts; a part with one document has none.
        let squares = parts
            .iter()
            .map(|(size, acc)| acc.stderr.map(|stderr| (size - 1.0) * stderr * stderr * size))
            .sum::<Option<f64>>();
        let stderr = squares.map(|squares| (squares / (total - parts.len() as f64) / total).sqrt());
        Some(Self {
            group,
            metrics: vec![Metric { name: "acc", value, stderr }],
            num_documents: total as usize,
            num_fewshot,
            chance: chance.map(|chance| chance / total),
        })
    }
}

impl Measured {
    /// From the answers to questions.
    pub(super) fn of_answers(answers: impl Iterator<Item = Answer>) -> Self {
        let answers: Vec<Answer> = answers.collect();
        let share = |name, is_right: fn(Judgement) -> bool| {
            let right: Vec<f64> = answers
                .iter()
                .filter_map(Answer::judgement)
                .map(|judgement| f64::from(u8::from(is_right(judgement))))
                .collect();
            Metric { name, value: mean(&right), stderr: standard_error(&right) }
        };
        let metrics = vec![
            share("acc", |judgement| judgement.acc),
            share("acc_norm", |judgement| judgement.acc_norm),
        ];
        Self { metrics, answers }
    }

    /// From the log-likelihoods of whole texts; if the number of tokens is known, also the loss per
    /// token.
    pub(super) fn of_texts(
        texts: &[Text],
        log_likelihoods: impl Iterator<Item = f64>,
        num_tokens: Option<u64>,
    ) -> Self {
        let log_likelihoods: Vec<f64> = log_likelihoods.collect();
        let total: f64 = log_likelihoods.iter().sum();
        let per = |count: u64| -total / count as f64;
        let (words, bytes) = (
            texts.iter().map(|text| text.num_words).sum(),
            texts.iter().map(|text| text.num_bytes).sum(),
        );
        let per_token = num_tokens
            .map(|tokens| [("token_loss", per(tokens)), ("perplexity", per(tokens).exp())]);
        let others = [
            ("word_perplexity", per(words).exp()),
            ("byte_perplexity", per(bytes).exp()),
            ("bits_per_byte", per(bytes) / LN_2),
        ];
        let metrics = per_token.into_iter().flatten().chain(others).map(plain).collect();
        Self { metrics, answers: log_likelihoods.into_iter().map(Answer::Text).collect() }
    }

    /// From the log-likelihoods of blocks with `num_scored` scored tokens each: the mean of the
    /// blocks' means.
    pub(super) fn of_blocks(log_likelihoods: impl Iterator<Item = f64>, num_scored: usize) -> Self {
        let log_likelihoods: Vec<f64> = log_likelihoods.collect();
        let losses: Vec<f64> = log_likelihoods.iter().map(|sum| -sum / num_scored as f64).collect();
        let loss = mean(&losses);
        let metrics = [("token_loss", loss), ("perplexity", loss.exp())].map(plain).to_vec();
        Self { metrics, answers: log_likelihoods.into_iter().map(Answer::Text).collect() }
    }
}

impl Answer {
    fn judgement(&self) -> Option<Judgement> {
        match self {
            Self::Choice { judgement, .. } => Some(*judgement),
            Self::Text(_) => None,
        }
    }
}

fn plain((name, value): (&'static str, f64)) -> Metric {
    Metric { name, value, stderr: None }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard error of the mean, from the unbiased variance; `None` for a single value.
fn standard_error(values: &[f64]) -> Option<f64> {
    let (mean, count) = (mean(values), values.len() as f64);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt() / count.sqrt())
}
