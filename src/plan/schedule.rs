//! The learning rate as a pure function of the step inside a stage.
//!
//! The values are those of Hugging Face's schedules: the first update of a stage with a warm-up has
//! rate 0. `fit.rs` ensures that the parts of a schedule fit into its stage.

use std::f64::consts::PI;

use crate::config::ScheduleKind;

/// Learning rate schedule of one stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Schedule after the warm-up.
    pub kind: ScheduleKind,
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Learning rate at the end of the stage.
    pub minimum: f64,
    /// Updates with a rising rate.
    pub warmup_steps: u64,
    /// Updates with a falling rate at the end of a `wsd` stage.
    pub decay_steps: u64,
    /// Updates of the stage.
    pub steps: u64,
}

impl Schedule {
    /// Learning rate of the update that follows `completed` updates of this stage.
    #[must_use]
    pub fn learning_rate(&self, completed: u64) -> f64 {
        if completed < self.warmup_steps {
            return self.peak * completed as f64 / self.warmup_steps as f64;
        }
        let height = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - self.progress(completed, self.warmup_steps),
            ScheduleKind::Cosine => {
                0.5 * (1.0 + (PI * self.progress(completed, self.warmup_steps)).cos())
            }
            ScheduleKind::Wsd => {
                1.0 - self.progress(completed, self.steps.saturating_sub(self.decay_steps))
            }
        };
        self.minimum + (self.peak - self.minimum) * height
    }

    /// How far `completed` is from `start` to the end of the stage, in 0..=1.
    fn progress(&self, completed: u64, start: u64) -> f64 {
        let length = self.steps.saturating_sub(start).max(1);
        (completed.saturating_sub(start) as f64 / length as f64).min(1.0)
    }
}
