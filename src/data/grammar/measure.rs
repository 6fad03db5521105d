//! The exact entropy of the stories: the loss of a perfect predictor.
//!
//! Expectations add up: over a sequence, over a weighted choice, over the rows of a table. A
//! recalled word costs no nats and takes the average number of tokens of its table's rows, since
//! what is remembered does not depend on the path.

use crate::data::grammar::syntax::{Grammar, Node, WordStyle};
use crate::data::{DataError, Tokenizer};

/// Number of stories that are encoded whole to check whether a tokenizer encodes them word by word.
const PROBES: u64 = 64;

/// Expectations over all stories.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Expectation {
    /// Entropy of a story in nats.
    pub nats: f64,
    /// Tokens of a story.
    pub tokens: f64,
}

impl Grammar {
    /// Entropy rate of the endless text in nats per token: the loss of a perfect predictor with
    /// unlimited memory.
    ///
    /// Each document has `special_tokens` (BOS and EOS) in addition to its words; these carry no
    /// entropy. `None` for a tokenizer that joins adjacent words into one token, since the
    /// number of tokens then does not add up word by word.
    pub fn entropy_rate(
        &self,
        tokenizer: &Tokenizer,
        special_tokens: usize,
    ) -> Result<Option<f64>, DataError> {
        let Expectation { nats, tokens } = self.measure(tokenizer)?;
        let mut is_exact = true;
        for index in 0..PROBES {
            is_exact &= is_encoded_by_words(&self.story(0, index).text, tokenizer)?;
        }
        Ok(is_exact.then(|| nats / (tokens + special_tokens as f64)))
    }

    /// Entropy and length of a story, if the tokenizer encodes it word by word.
    pub fn measure(&self, tokenizer: &Tokenizer) -> Result<Expectation, DataError> {
        let length = |text: &str| tokenizer.encode(text).map(|ids| ids.len() as f64);
        self.measure_node(&self.story, &length)
    }

    fn measure_node(
        &self,
        node: &Node,
        length: &dyn Fn(&str) -> Result<f64, DataError>,
    ) -> Result<Expectation, DataError> {
        match node {
            Node::Word(text) => Ok(Expectation { nats: 0.0, tokens: length(text)? }),
            Node::Draw { table, column, style, .. } => {
                let nats = (self.tables[*table].rows.len() as f64).ln();
                Ok(Expectation { nats, tokens: self.mean_length(*table, *column, *style, length)? })
            }
            Node::Recall { table, column, style, .. } => Ok(Expectation {
                nats: 0.0,
                tokens: self.mean_length(*table, *column, *style, length)?,
            }),
            Node::Sequence(parts) => {
                let mut sum = Expectation::default();
                for part in parts {
                    let part = self.measure_node(part, length)?;
                    sum = Expectation {
                        nats: sum.nats + part.nats,
                        tokens: sum.tokens + part.tokens,
                    };
                }
                Ok(sum)
            }
            Node::Choice(alternatives) => {
                let total: u64 = alternatives.iter().map(|(weight, _)| weight).sum();
                let mut sum = Expectation::default();
                for (weight, part) in alternatives {
                    let chance = *weight as f64 / total as f64;
                    let part = self.measure_node(part, length)?;
                    sum.nats += chance * (part.nats - chance.ln());
                    sum.tokens += chance * part.tokens;
                }
                Ok(sum)
            }
        }
    }

    fn mean_length(
        &self,
        table: usize,
        column: usize,
        style: WordStyle,
        length: &dyn Fn(&str) -> Result<f64, DataError>,
    ) -> Result<f64, DataError> {
        let rows = &self.tables[table].rows;
        let mut sum = 0.0;
        for row in rows {
            sum += length(&style.set(&row[column]))?;
        }
        Ok(sum / rows.len() as f64)
    }
}

/// Whether the ids of `text` are the concatenated ids of its words.
pub(super) fn is_encoded_by_words(text: &str, tokenizer: &Tokenizer) -> Result<bool, DataError> {
    let mut by_words = Vec::new();
    for word in words(text) {
        by_words.extend(tokenizer.encode(word)?);
    }
    Ok(tokenizer.encode(text)? == by_words)
}

/// Splits a story into its words, each with the space before it, and its punctuation.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_letter = |c: char| c.is_alphanumeric();
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().find(|c| *c != ' ')?;
        let space = rest.len() - rest.trim_start_matches(' ').len();
        let end = rest[space..]
            .find(|c: char| c == ' ' || is_letter(c) != is_letter(first))
            .map_or(rest.len(), |end| space + end);
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}
