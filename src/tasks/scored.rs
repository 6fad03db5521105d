//! What a model is asked: how probable the end of a sequence is.

/// A sequence of ids of which the last `num_scored` are predicted, each from those before it.
///
/// The model reads all but the last id, so a sequence may be one id longer than its context. The first id is never predicted:
/// `num_scored < ids.len()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// What is read and predicted.
    pub ids: Vec<u32>,
    /// How many ids at its end are predicted.
    pub num_scored: usize,
}

impl Scored {
    /// What the model reads.
    #[must_use]
    pub fn input(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// What it is to predict, at the last positions of its input.
    #[must_use]
    pub fn targets(&self) -> &[u32] {
        &self.ids[self.ids.len() - self.num_scored..]
    }
}
