//! Time in steps, without evaluations, checkpoints and pauses: the basis of throughput and ETA.

use std::time::{Duration, Instant};

/// Measures the work of the steps of a run.
#[derive(Debug)]
pub(super) struct Clock {
    /// Time in steps per stage over all attempts, in seconds.
    stages: Vec<f64>,
    running_since: Option<Instant>,
    worked: Duration,
    data_wait: Duration,
    steps: u32,
}

/// Since the last report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lap {
    /// Mean duration of a step.
    pub(super) step_seconds: f64,
    /// Time spent waiting for data.
    pub(super) data_wait_seconds: f64,
}

impl Clock {
    /// A clock that continues from the time per stage of earlier attempts.
    pub(super) fn new(stages: Vec<f64>) -> Self {
        Self {
            stages,
            running_since: None,
            worked: Duration::ZERO,
            data_wait: Duration::ZERO,
            steps: 0,
        }
    }

    /// Work begins.
    pub(super) fn run(&mut self) {
        self.running_since = Some(Instant::now());
    }

    /// Work is interrupted.
    pub(super) fn rest(&mut self) {
        if let Some(since) = self.running_since.take() {
            self.worked += since.elapsed();
        }
    }

    /// One more step was completed.
    pub(super) fn count_step(&mut self) {
        self.steps += 1;
    }

    /// Part of the work was waiting for data.
    pub(super) fn count_data_wait(&mut self, wait: Duration) {
        self.data_wait += wait;
    }

    /// Adds the time since the last lap to stage `idx`.
    pub(super) fn lap(&mut self, idx: usize) -> Lap {
        let worked = std::mem::take(&mut self.worked).as_secs_f64();
        let lap = Lap {
            step_seconds: worked / f64::from(self.steps.max(1)),
            data_wait_seconds: std::mem::take(&mut self.data_wait).as_secs_f64(),
        };
        self.steps = 0;
        self.stages[idx] += worked;
        lap
    }

    /// Time in steps per stage, in seconds, including the time on stage `idx` since the last lap.
    pub(super) fn stages(&self, idx: usize) -> Vec<f64> {
        let mut stages = self.stages.clone();
        stages[idx] += self.worked.as_secs_f64();
        stages
    }

    /// Time in steps of stage `idx`, in seconds.
    pub(super) fn stage_seconds(&self, idx: usize) -> f64 {
        self.stages[idx]
    }

    /// Time in steps of the run, in seconds.
    pub(super) fn total_seconds(&self) -> f64 {
        self.stages.iter().sum()
    }
}
