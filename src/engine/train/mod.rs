//! Training: from a run directory to a trained model, and everything that happens between two steps.
//!
//! The loop owns three things that know nothing of one another: what learns, what obeys and what measures. None of them knows
//! who sends commands or who reads events. Start at `trainer.rs`.

mod trainer;

mod accumulate;
mod audit;
mod bench;
mod clock;
mod learner;

mod obey;
mod wall_time;

mod measure;
mod prompts;

mod facts;
mod save;
mod start;

mod decisions;
mod job;

#[cfg(test)]
mod tests;

pub use bench::{BenchSteps, PartTimes, StageTimes, StepBench};
pub use job::{Job, execute};
