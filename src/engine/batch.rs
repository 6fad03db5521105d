//! Sequences: input ids and targets of each position (arXiv 2407.12665, section 2).
//!
//! Only this file, the objective, the embedding and the head depend on the patch size.
//! Axes: `B` sequences, `T` patches, `K` tokens of a patch, `N = B * T`.

use crate::config::PatchSize;
use crate::engine::ops::head::Targets;
use crate::engine::positions::Positions;

/// A batch of sequences of equal length.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[B * T * K]`, sequence after sequence.
    pub ids: Vec<u32>,
    /// For each position the tokens of the next patch, and which of them are scored.
    pub targets: Targets,
    /// Number of scored targets.
    pub num_targets: u64,
    /// Sequences (B).
    pub num_sequences: usize,
    /// Positions per sequence (T).
    pub num_positions: usize,
    /// Tokens per position (K).
    pub patch_size: PatchSize,
}

impl Batch {
    /// `num_sequences` sequences, concatenated in `tokens`. Every token is scored except those of
    /// the first patch of a sequence, which no position predicts.
    pub fn new(tokens: &[u32], num_sequences: usize, patch_size: PatchSize) -> Self {
        Self::masked(tokens, None, num_sequences, patch_size)
    }

    /// The same, but only tokens with `is_scored` are scored, if that is given. Padding belongs at
    /// the end of a sequence, where no other position attends to it.
    pub fn masked(
        tokens: &[u32],
        is_scored: Option<&[bool]>,
        num_sequences: usize,
        patch_size: PatchSize,
    ) -> Self {
        let k = patch_size.get();
        let num_positions = tokens.len() / num_sequences / k;
        // The last patch of a sequence has no target.
        let next =
            |idx: usize| Some(idx + k).filter(|_| idx / k % num_positions + 1 < num_positions);
        let is_target = |idx: usize| {
            next(idx).is_some_and(|next| is_scored.is_none_or(|is_scored| is_scored[next]))
        };
        let targets = 0..tokens.len();
        let ids = targets.clone().map(|idx| next(idx).map_or(0, |next| tokens[next])).collect();
        let mask: Vec<f32> = targets.map(|idx| f32::from(u8::from(is_target(idx)))).collect();
        Self {
            ids: tokens.to_vec(),
            num_targets: mask.iter().filter(|mask| **mask > 0.0).count() as u64,
            targets: Targets { ids, per_row: k, mask: Some(mask) },
            num_sequences,
            num_positions,
            patch_size,
        }
    }

    /// Positions of each of its sequences.
    pub fn positions(&self) -> Positions {
        Positions::of_sequence(self.num_positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[u32], is_scored: Option<&[bool]>, k: u64, targets: &[u32], mask: &[f32]) {
        let batch = Batch::masked(tokens, is_scored, 2, PatchSize::new(k).unwrap());
        assert_eq!(batch.targets.ids, targets, "K = {k}");
        assert_eq!(batch.targets.mask.as_deref(), Some(mask), "K = {k}");
        assert_eq!(
            batch.num_targets,
            mask.iter().filter(|scored| **scored > 0.0).count() as u64,
            "K = {k}"
        );
    }

    #[test]
    fn each_position_predicts_the_next_patch_of_its_own_sequence() {
        let tokens: Vec<u32> = (1..=12).collect();
        check(
            &tokens,
            None,
            1,
            &[2, 3, 4, 5, 6, 0, 8, 9, 10, 11, 12, 0],
            &[1., 1., 1., 1., 1., 0., 1., 1., 1., 1., 1., 0.],
        );
        check(
            &tokens,
            None,
            2,
            &[3, 4, 5, 6, 0, 0, 9, 10, 11, 12, 0, 0],
            &[1., 1., 1., 1., 0., 0., 1., 1., 1., 1., 0., 0.],
        );
        check(&tokens, None, 6, &[0; 12], &[0.; 12]);
    }

    #[test]
    fn only_scored_tokens_count() {
        let tokens: Vec<u32> = (1..=12).collect();
        // The first sequence scores its last two tokens, the second one is padded after three.
        let is_scored =
            [false, false, false, false, true, true, true, true, true, false, false, false];
        check(
            &tokens,
            Some(&is_scored),
            1,
            &[2, 3, 4, 5, 6, 0, 8, 9, 10, 11, 12, 0],
            &[0., 0., 0., 1., 1., 0., 1., 1., 0., 0., 0., 0.],
        );
        check(
            &tokens,
            Some(&is_scored),
            2,
            &[3, 4, 5, 6, 0, 0, 9, 10, 11, 12, 0, 0],
            &[0., 0., 1., 1., 0., 0., 1., 0., 0., 0., 0., 0.],
        );
    }
}
