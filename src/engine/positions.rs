//! The positions to compute, and the positions that they may attend to.

/// Queries at consecutive positions, and the existing keys.
///
/// A whole sequence, a chunk of its queries and one new token after a cache are all expressed as
/// queries `start..start + queries` against the keys `0..keys`. A query attends to keys up to its
/// own position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Position of the first query.
    pub start: usize,
    /// Number of queries.
    pub queries: usize,
    /// Number of keys, including those of the queries.
    pub keys: usize,
}

impl Positions {
    /// A whole sequence of `length` positions.
    pub fn of_sequence(length: usize) -> Self {
        Self { start: 0, queries: length, keys: length }
    }

    /// Splits the queries into chunks of at most `size`; each gets only the keys that one of its
    /// queries may attend to.
    pub fn chunks(self, size: usize) -> impl DoubleEndedIterator<Item = Self> {
        (0..self.queries).step_by(size).map(move |first| {
            let (start, queries) = (self.start + first, size.min(self.queries - first));
            Self { start, queries, keys: start + queries }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_see_the_keys_up_to_their_last_query() {
        let chunk = |start, queries, keys| Positions { start, queries, keys };
        assert_eq!(
            Positions::of_sequence(5).chunks(2).collect::<Vec<_>>(),
            [chunk(0, 2, 2), chunk(2, 2, 4), chunk(4, 1, 5)]
        );
        // Three new tokens after a cache of seven, in a buffer with room for more.
        assert_eq!(
            chunk(7, 3, 16).chunks(2).collect::<Vec<_>>(),
            [chunk(7, 2, 9), chunk(9, 1, 10)]
        );
    }
}
