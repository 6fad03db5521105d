//! Warnings, which should be acted on, and notes of a plan.

use crate::config::RunConfig;
use crate::plan::{Cadences, PlanError, StagePlan};
use crate::text::format::counted;

/// From this learning rate on, a step of `AdamW` moves each weight by several times its size:
/// weights are initialized with a standard deviation of 0.02 (`model.initializer_range`). The rates
/// of the paper and its follow-ups are between 1e-4 and 1e-2.
const HIGH_LEARNING_RATE: f64 = 0.1;

/// Warnings and notes, in the order in which they are shown.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) warnings: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Remarks {
    /// Remarks about the stages as a whole.
    pub(super) fn on_stages(&mut self, config: &RunConfig, stages: &[StagePlan]) {
        self.on_learning_rates(config);
        if let Some(patch_size) =
            stages.last().map(|stage| stage.patch_size).filter(|patch_size| patch_size.get() > 1)
        {
            let problem = format!(
                "the last stage trains on patches (K = {patch_size}): the result is unusable as a \
                 token-level LM"
            );
            self.warnings.push(format!("{problem}; add a stage with patch_size = 1"));
        }
    }

    fn on_learning_rates(&mut self, config: &RunConfig) {
        let own = config.stages.iter().enumerate().filter_map(|(idx, stage)| {
            Some((format!("stages[{idx}].learning_rate"), stage.learning_rate?))
        });
        let of_run = config
            .stages
            .iter()
            .any(|stage| stage.learning_rate.is_none())
            .then(|| ("optimizer.learning_rate".to_owned(), config.optimizer.learning_rate));
        for (key, rate) in
            of_run.into_iter().chain(own).filter(|(_, rate)| *rate >= HIGH_LEARNING_RATE)
        {
            self.warnings.push(format!(
                "{key} = {rate:?} is far above the usual range for AdamW (1e-4 to 1e-2): expect \
                 the loss to diverge"
            ));
        }
    }

    /// Remarks about what happens between steps.
    pub(super) fn on_cadences(&mut self, config: &RunConfig, cadences: &Cadences) {
        if let (true, Some(save), Some(evaluation)) =
            (config.checkpoint.keep_best, cadences.checkpoint, cadences.evaluation)
            && !save.is_multiple_of(evaluation)
        {
            let cadences = format!("it saves every {save} steps and evaluates every {evaluation}");
            self.notes.push(format!(
                "checkpoint.keep_best compares only checkpoints of evaluated steps: {cadences}"
            ));
        }
    }

    /// Remarks about a text of `train_tokens` tokens, of which `usable` fill whole blocks, and a
    /// run that reads `tokens`.
    ///
    /// # Errors
    /// When there is less than one block.
    pub(super) fn on_corpus(
        &mut self,
        [train_tokens, usable, block_tokens]: [u64; 3],
        tokens: u64,
    ) -> Result<(), PlanError> {
        if usable == 0 {
            return Err(PlanError::CorpusTooSmall { tokens: train_tokens, block_tokens });
        }
        if usable < train_tokens {
            let dropped = counted(train_tokens - usable, "trailing training token");
            self.notes.push(format!(
                "dropped {dropped} (incomplete block of {block_tokens}; {train_tokens} in total)"
            ));
        }
        if tokens > usable {
            self.notes.push(format!(
                "the run takes {:.2} epochs of the training text",
                tokens as f64 / usable as f64
            ));
        }
        Ok(())
    }
}
