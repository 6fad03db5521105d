//! Which tokens of a stream are targets, for texts of which only a part is to be learned.

use std::ops::Range;
use std::sync::Arc;

/// A bit per token of a stream; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetMask(Arc<[u64]>);

impl TargetMask {
    /// The mask of a stream of `tokens` tokens, whose targets are in `ranges`.
    ///
    /// # Panics
    /// If a range leaves the stream.
    #[must_use]
    pub fn new(tokens: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut words = vec![0; tokens.div_ceil(64) as usize];
        for at in ranges.into_iter().flatten() {
            assert!(at < tokens, "target {at} is not one of {tokens} tokens");
            words[(at / 64) as usize] |= 1_u64 << (at % 64);
        }
        Self(words.into())
    }

    /// Whether token `at` is a target.
    #[must_use]
    pub fn has(&self, at: u64) -> bool {
        self.0[(at / 64) as usize] >> (at % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_its_ranges_and_nothing_else() {
        let mask = TargetMask::new(130, [3..5, 63..65, 129..130]);
        let targets: Vec<u64> = (0..130).filter(|at| mask.has(*at)).collect();
        assert_eq!(targets, [3, 4, 63, 64, 129]);
    }
}
