//! How long a plan takes at measured speeds, and how far it gets within a time limit.

use std::time::Duration;

use crate::plan::RunPlan;

/// The measured speed of a stage in tokens per second, the optimizer's update included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageSpeed {
    /// Median of the repetitions.
    pub median: f64,
    /// Slowest repetition.
    pub slowest: f64,
    /// Fastest repetition.
    pub fastest: f64,
    /// Measurements after the warm-up; 0 if the speed is derived from that of another stage.
    pub repetitions: usize,
    /// Whether the last repetitions agreed, so that the median is reliable.
    pub is_stable: bool,
}

/// The measured speeds; empty if nothing was measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Speed of each stage.
    pub speeds: Vec<StageSpeed>,
    /// What was measured instead of the plan's own network and micro-batches, e.g. `"1 of 24
    /// layers"`.
    pub scaled_from: Option<String>,
}

impl Measured {
    /// Tokens per second of each stage.
    #[must_use]
    pub fn tokens_per_second(&self) -> Vec<f64> {
        self.speeds.iter().map(|speed| speed.median).collect()
    }
}

/// Seconds of a run's training steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunSeconds {
    /// At the median speeds.
    pub expected: f64,
    /// At the fastest speeds.
    pub least: f64,
    /// At the slowest speeds.
    pub most: f64,
}

/// Where a run is when its time limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The stage, counted from 0.
    pub stage_idx: usize,
    /// Completed updates of the run.
    pub step: u64,
}

impl RunPlan {
    /// Seconds of all training steps; `None` unless there is a speed for each stage.
    #[must_use]
    pub fn seconds(&self, speeds: &[StageSpeed]) -> Option<RunSeconds> {
        let sum = |speed: fn(&StageSpeed) -> f64| -> f64 {
            self.stage_seconds(&speeds.iter().map(speed).collect::<Vec<_>>()).sum()
        };
        let is_measured = !speeds.is_empty() && speeds.len() == self.stages.len();
        is_measured.then(|| RunSeconds {
            expected: sum(|speed| speed.median),
            least: sum(|speed| speed.fastest),
            most: sum(|speed| speed.slowest),
        })
    }

    /// How far the run gets within `limit` at `tokens_per_second` of each stage; `None` if the
    /// limit suffices for all steps.
    #[must_use]
    pub fn reached_in(&self, limit: Duration, tokens_per_second: &[f64]) -> Option<Reached> {
        let mut left = limit.as_secs_f64();
        for (stage_idx, seconds) in self.stage_seconds(tokens_per_second).enumerate() {
            if seconds > left {
                let stage = &self.stages[stage_idx];
                let steps = (left / seconds * stage.steps as f64) as u64;
                return Some(Reached {
                    stage_idx,
                    step: stage.first_step + steps.min(stage.steps),
                });
            }
            left -= seconds;
        }
        None
    }

    fn stage_seconds(&self, tokens_per_second: &[f64]) -> impl Iterator<Item = f64> {
        self.stages
            .iter()
            .zip(tokens_per_second)
            .map(|(stage, speed)| stage.steps as f64 * stage.tokens_per_step as f64 / speed)
    }

    /// The warning if `limit`, the run's wall-time limit, is shorter than its training steps.
    #[must_use]
    pub fn walltime_warning(&self, limit: Duration, tokens_per_second: &[f64]) -> Option<String> {
        let Reached { stage_idx, step } = self.reached_in(limit, tokens_per_second)?;
        let (number, of, patch_size) =
            (stage_idx + 1, self.stages.len(), self.stages[stage_idx].patch_size);
        let steps = self.steps;
        Some(format!(
            "training.max_walltime is shorter than the run: it would stop in stage {number} of \
             {of} (K = {patch_size}), at about step {step} of {steps}; resume it to complete it"
        ))
    }
}
