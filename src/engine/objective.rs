//! What is learned from a text: which of its tokens are targets, and how many a step has.
//!
//! `step.rs` sees batches with their targets and the scale of the loss; it does not know the
//! objective. Start at [`StepText`].

use crate::data::{DataError, Loader, TargetMask};
use crate::engine::batch::Batch;
use crate::plan::StagePlan;

/// What is learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objective {
    /// Every token but those of the first patch of a sequence, which no position predicts:
    /// pre-training, on patches (K > 1) and on tokens (K = 1).
    Pretraining,
    /// Of those only the tokens of a mask, e.g. the answers of dialogues.
    Masked(TargetMask),
}

/// The text of one update.
#[derive(Debug, Clone, Copy)]
pub struct StepText<'a> {
    /// Training text in its order.
    pub loader: &'a Loader,
    /// What is learned from it.
    pub objective: &'a Objective,
    /// Position of the update in that order, in tokens.
    pub data_position: u64,
    /// How the text is split.
    pub stage: &'a StagePlan,
}

impl StepText<'_> {
    /// Micro-batch `idx`.
    ///
    /// # Errors
    /// When its text cannot be read.
    pub fn batch(&self, idx: usize) -> Result<Batch, DataError> {
        let (sequence, count) = (self.stage.sequence_tokens(), self.stage.micro_batch_size);
        let mut tokens = vec![0; count * sequence];
        for (out, position) in tokens.chunks_mut(sequence).zip(self.positions(idx)) {
            self.loader.read(position, out)?;
        }
        let is_target: Option<Vec<bool>> = match self.objective {
            Objective::Pretraining => None,
            Objective::Masked(mask) => Some(
                self.positions(idx)
                    .flat_map(|position| self.places(position))
                    .map(|place| mask.has(place))
                    .collect(),
            ),
        };
        Ok(Batch::masked(&tokens, is_target.as_deref(), count, self.stage.patch_size))
    }

    /// Targets of the whole update, over all micro-batches.
    pub fn num_targets(&self) -> u64 {
        match self.objective {
            Objective::Pretraining => self.stage.targets_per_step(),
            Objective::Masked(mask) => {
                let sequences =
                    (0..self.stage.num_micro_batches).flat_map(|idx| self.positions(idx));
                let targets = sequences
                    .flat_map(|position| self.places(position).skip(self.stage.patch_size.get()));
                targets.filter(|place| mask.has(*place)).count() as u64
            }
        }
    }

    /// What the gradients of summed losses are multiplied by: those of the mean over all targets
    /// of the update are learned from.
    pub fn scale(&self) -> f64 {
        1.0 / self.num_targets().max(1) as f64
    }

    /// Where the sequences of micro-batch `idx` begin, in the order of the run.
    fn positions(&self, idx: usize) -> impl Iterator<Item = u64> + use<> {
        let (sequence, count) = (self.stage.sequence_tokens(), self.stage.micro_batch_size);
        let start = self.data_position + (idx * count * sequence) as u64;
        (0..count).map(move |number| start + (number * sequence) as u64)
    }

    /// The tokens of the sequence at `position`, by their place in the stream.
    fn places(&self, position: u64) -> impl Iterator<Item = u64> + use<> {
        let tokens = self.stage.sequence_tokens() as u64;
        let first = self.loader.place(position, tokens);
        first..first + tokens
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::data::{BlockOrder, random_tokens};
    use crate::plan::{Corpus, DeviceKind, RunPlan};

    #[test]
    fn the_batches_of_a_step_have_as_many_targets_as_the_scale_says() {
        let folder = tempfile::tempdir().unwrap();
        let request = LoadRequest { source: "demo", sets: &[], current_dir: Path::new("/") };
        let config = load(&request).unwrap().config;
        let corpus = Corpus { tokenizer_vocab_size: 1024, train_tokens: None, entropy_rate: None };
        let plan = RunPlan::new(&config, &corpus, DeviceKind::Cpu).unwrap();
        let tokens = 4 * plan.stages.iter().map(|stage| stage.tokens_per_step).max().unwrap();
        let stream = random_tokens(&folder.path().join("tokens"), 1024, tokens, 1).unwrap();
        let order = BlockOrder::new(stream.len(), plan.block_tokens, 1, true);
        let loader = Loader::new(stream, order);
        // Answers of different lengths, some across the end of a sequence.
        let answers = (0..tokens / 37).map(|idx| 37 * idx + 5..37 * idx + 6 + idx % 31);
        let masked = Objective::Masked(TargetMask::new(tokens, answers));
        for stage in &plan.stages {
            let step = |objective, data_position| StepText {
                loader: &loader,
                objective,
                data_position,
                stage,
            };
            for objective in [&Objective::Pretraining, &masked] {
                let text = step(objective, stage.tokens_per_step);
                let batches = (0..stage.num_micro_batches).map(|idx| text.batch(idx).unwrap());
                let targets: u64 = batches.map(|batch| batch.num_targets).sum();
                assert_eq!(targets, text.num_targets(), "K = {}", stage.patch_size);
                assert!((text.scale() * targets as f64 - 1.0).abs() < 1e-12);
            }
            let [all, some] =
                [&Objective::Pretraining, &masked].map(|one| step(one, 0).num_targets());
            assert!(0 < some && some < all, "{some} of {all}");
        }
    }
}
