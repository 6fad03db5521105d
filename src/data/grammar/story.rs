//! Generates stories.

use crate::data::grammar::syntax::{Grammar, Node};
use crate::data::random::Random;

/// A story with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// One document.
    pub text: String,
    /// Minus the natural logarithm of its probability.
    pub nats: f64,
}

/// A story being generated.
struct Telling<'a> {
    grammar: &'a Grammar,
    random: Random,
    /// The row that each variable remembers.
    remembered: Vec<usize>,
    story: Story,
}

impl Grammar {
    /// Story number `index` of a seed: reproducible, and independent of the others.
    #[must_use]
    pub fn story(&self, seed: u64, index: u64) -> Story {
        let story = Story { text: String::new(), nats: 0.0 };
        let mut telling = Telling {
            grammar: self,
            random: Random::new(seed, index),
            remembered: vec![0; self.num_variables],
            story,
        };
        telling.append(&self.story);
        telling.story
    }

    /// The endless text of a seed, document by document.
    pub fn documents(&self, seed: u64) -> impl Iterator<Item = String> {
        (0..).map(move |index| self.story(seed, index).text)
    }
}

impl Telling<'_> {
    fn append(&mut self, node: &Node) {
        match node {
            Node::Word(text) => self.story.text.push_str(text),
            Node::Draw { table, column, variable, style } => {
                let rows = &self.grammar.tables[*table].rows;
                let row = self.random.below(rows.len() as u64) as usize;
                self.story.nats += (rows.len() as f64).ln();
                if let Some(variable) = variable {
                    self.remembered[*variable] = row;
                }
                self.story.text.push_str(&style.set(&rows[row][*column]));
            }
            Node::Recall { table, column, variable, style } => {
                let row = &self.grammar.tables[*table].rows[self.remembered[*variable]];
                self.story.text.push_str(&style.set(&row[*column]));
            }
            Node::Sequence(parts) => parts.iter().for_each(|part| self.append(part)),
            Node::Choice(alternatives) => {
                let total: u64 = alternatives.iter().map(|(weight, _)| weight).sum();
                let mut ticket = self.random.below(total);
                for (weight, part) in alternatives {
                    if ticket < *weight {
                        self.story.nats += (total as f64 / *weight as f64).ln();
                        return self.append(part);
                    }
                    ticket -= weight;
                }
            }
        }
    }
}
