//! The request to a model: score the end of a sequence.

/// A sequence of ids; the last `num_scored` are scored, each given the ids before it.
///
/// The model reads all ids but the last, so a sequence may be one longer than the context length.
/// The first id is never scored: `num_scored < ids.len()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// Context and continuation.
    pub ids: Vec<u32>,
    /// Number of scored ids at the end.
    pub num_scored: usize,
}

impl Scored {
    /// Input of the model.
    #[must_use]
    pub fn input(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// Targets at the last positions of the input.
    #[must_use]
    pub fn targets(&self) -> &[u32] {
        &self.ids[self.ids.len() - self.num_scored..]
    }
}
