//! A multiple-choice question: its requests, and whether the answer is correct.
//!
//! Start at [`Question::requests`], then [`Question::judge`].

use crate::tasks::python::num_code_points;

/// Separator of context and continuation.
const DELIMITER: &str = " ";

/// A question as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is compared.
    pub prompt: Prompt,
    /// Index of the correct choice, counted from 0.
    pub gold: usize,
}

/// The choices of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Several continuations of the same context.
    Continuations {
        /// Context.
        context: String,
        /// The continuations, without the separating space.
        choices: Vec<String>,
    },
    /// The same continuation of several contexts.
    Contexts {
        /// The contexts.
        contexts: Vec<String>,
        /// The continuation, without the separating space.
        continuation: String,
    },
}

/// A request: score `continuation` after `context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest<'a> {
    /// Text that is given.
    pub context: &'a str,
    /// Text that is scored, with the separating space.
    pub continuation: String,
}

/// Whether an answer is correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Whether the correct choice is the most probable.
    pub acc: bool,
    /// Whether it is the most probable by log-likelihood per character (Unicode code point).
    pub acc_norm: bool,
}

impl Question {
    /// One request per choice.
    #[must_use]
    pub fn requests(&self) -> Vec<ScoreRequest<'_>> {
        match &self.prompt {
            Prompt::Continuations { context, choices } => choices
                .iter()
                .map(|choice| ScoreRequest {
                    context,
                    continuation: format!("{DELIMITER}{choice}"),
                })
                .collect(),
            Prompt::Contexts { contexts, continuation } => contexts
                .iter()
                .map(|context| ScoreRequest {
                    context,
                    continuation: format!("{DELIMITER}{continuation}"),
                })
                .collect(),
        }
    }

    /// Number of choices.
    #[must_use]
    pub fn num_choices(&self) -> usize {
        let (Prompt::Continuations { choices, .. } | Prompt::Contexts { contexts: choices, .. }) =
            &self.prompt;
        choices.len()
    }

    /// Judges the log-likelihoods of the requests (natural logarithm). On a tie the first choice
    /// counts.
    #[must_use]
    pub fn judge(&self, log_likelihoods: &[f64]) -> Judgement {
        let (Prompt::Continuations { choices, .. } | Prompt::Contexts { contexts: choices, .. }) =
            &self.prompt;
        let per_character: Vec<f64> = choices
            .iter()
            .zip(log_likelihoods)
            .map(|(choice, value)| value / num_code_points(choice) as f64)
            .collect();
        Judgement {
            acc: largest(log_likelihoods) == self.gold,
            acc_norm: largest(&per_character) == self.gold,
        }
    }
}

/// Index of the maximum, as in numpy: the first on a tie, and NaN is larger than all numbers.
fn largest(values: &[f64]) -> usize {
    let mut best = 0;
    for (idx, value) in values.iter().enumerate() {
        if values[best].is_nan() {
            break;
        }
        if value.is_nan() || *value > values[best] {
            best = idx;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_wins() {
        let nan = f64::NAN;
        let infinite = f64::NEG_INFINITY;
        for (values, first) in [
            (&[-2.0, -1.0, -1.0][..], 1),
            (&[-1.0, -1.0], 0),
            (&[infinite, infinite], 0),
            (&[-1.0, nan, 3.0, nan], 1),
            (&[infinite, -5.0], 1),
        ] {
            assert_eq!(largest(values), first, "{values:?}");
        }
    }

    #[test]
    fn lengths_are_code_points_without_the_delimiter() {
        let choices = vec!["ab".to_owned(), " \u{e9}\u{1f980}x".to_owned(), String::new()];
        let question =
            Question { prompt: Prompt::Continuations { context: "c".into(), choices }, gold: 1 };
        assert_eq!(
            question.requests()[1],
            ScoreRequest { context: "c", continuation: "  \u{e9}\u{1f980}x".into() }
        );
        // -3 / 2 < -5.5 / 4, and a choice without characters never wins.
        assert_eq!(question.judge(&[-3.0, -5.5, -1.0]), Judgement { acc: false, acc_norm: true });
    }
}
