//! The wall-time limit of a run: when it must begin to end, so that its last step and its last
//! checkpoint still fit.

use std::time::{Duration, Instant};

use crate::config::RunConfig;
use crate::engine::train::facts::{Position, RunFacts};
use crate::engine::train::start::Reached;

/// Minimum reserve before the limit.
const LEAST_RESERVE: Duration = Duration::from_secs(1);
/// Safety factor of the reserve relative to the measured duration of a step and a save.
const RESERVE_MARGIN: f64 = 1.25;
/// Assumed bytes per second of the first save: a slow network disk.
const SLOW_DISK: f64 = 50e6;

/// The limit of a run, and how long ending takes.
#[derive(Debug)]
pub(super) struct TimeLimit {
    started: Instant,
    limit: Duration,
    steps: SlowestStep,
    /// Seconds of the slowest save.
    slowest_save: Option<f64>,
    /// Assumed duration of the first save, in seconds.
    assumed_save: f64,
}

/// State of the step clock at a position in the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepTime {
    /// The position.
    pub(super) place: Position,
    /// Positions of one step of its stage.
    pub(super) positions: f64,
    /// Time in steps of the run, in seconds.
    pub(super) seconds: f64,
}

/// Maximum duration of a step.
#[derive(Debug, Default)]
struct SlowestStep {
    /// Stage in which it was measured.
    stage: usize,
    /// Seconds per position.
    of_position: f64,
    /// Completed updates and seconds at the last reading of the clock.
    last_step: u64,
    last_seconds: f64,
}

impl TimeLimit {
    /// The limit of a run that `started` then and continues from what it has `reached`, if it has a
    /// limit.
    pub(super) fn of(facts: &RunFacts, started: Instant, reached: &Reached) -> Option<Self> {
        let steps = SlowestStep {
            last_step: reached.step,
            last_seconds: reached.active_seconds.iter().sum(),
            ..SlowestStep::default()
        };
        let assumed_save = facts.plan.memory.checkpoint as f64 / SLOW_DISK;
        facts.config.training.max_walltime.map(|limit| Self {
            started,
            limit: limit.0,
            steps,
            slowest_save: None,
            assumed_save,
        })
    }

    /// When the run must begin to end; a limit beyond the range of the clock is ignored.
    pub(super) fn deadline(&mut self, now: StepTime) -> Option<Instant> {
        if now.place.step > self.steps.last_step {
            self.steps.count(now);
        }
        let save = self.slowest_save.unwrap_or(self.assumed_save);
        let needed = Duration::try_from_secs_f64(
            RESERVE_MARGIN * (self.steps.of_position * now.positions + save),
        )
        .unwrap_or(Duration::MAX);
        self.started.checked_add(self.limit.saturating_sub(reserve(needed, self.limit)))
    }

    /// Records the duration of a save.
    pub(super) fn count_save(&mut self, seconds: f64) {
        let slowest = self.slowest_save.get_or_insert(seconds);
        *slowest = slowest.max(seconds);
    }
}

impl SlowestStep {
    /// Counts the steps since the last reading of the clock.
    fn count(&mut self, now: StepTime) {
        let Position { step, stage_idx } = now.place;
        let of_each =
            (now.seconds - self.last_seconds) / (step - self.last_step) as f64 / now.positions;
        // Before the first step of a new stage, its step time is derived from the last stage's time
        // per position.
        self.of_position =
            if stage_idx == self.stage { self.of_position.max(of_each) } else { of_each };
        (self.stage, self.last_step, self.last_seconds) = (stage_idx, step, now.seconds);
    }
}

/// When a run that began at `started` must stop before its first step, if it has a wall-time limit.
pub(super) fn first_deadline(started: Instant, config: &RunConfig) -> Option<Instant> {
    config.training.max_walltime.and_then(|limit| {
        started.checked_add(limit.0.saturating_sub(reserve(LEAST_RESERVE, limit.0)))
    })
}

/// The part of `limit` that remains for ending, which needs `needed`.
fn reserve(needed: Duration, limit: Duration) -> Duration {
    needed.max(LEAST_RESERVE).min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_what_ending_needs_but_at_most_half_the_limit() {
        let seconds = Duration::from_secs;
        assert_eq!(reserve(seconds(0), seconds(3600)), seconds(1));
        assert_eq!(reserve(seconds(90), seconds(3600)), seconds(90));
        assert_eq!(reserve(seconds(90), seconds(60)), seconds(30));
        assert_eq!(reserve(seconds(0), seconds(1)), Duration::from_millis(500));
    }

    #[test]
    fn the_slowest_step_of_a_stage_counts_and_a_new_stage_starts_over() {
        let mut slowest = SlowestStep::default();
        let at = |stage_idx, step, seconds, positions| StepTime {
            place: Position { step, stage_idx },
            positions,
            seconds,
        };
        slowest.count(at(0, 1, 3.0, 10.0));
        slowest.count(at(0, 3, 5.0, 10.0));
        assert_eq!(slowest.of_position.to_bits(), 0.3_f64.to_bits());
        slowest.count(at(1, 4, 13.0, 40.0));
        assert_eq!(slowest.of_position.to_bits(), 0.2_f64.to_bits());
    }
}
