//! Training: from a run directory to a trained model, and everything that happens between two
//! steps.
//!
//! The loop combines three independent parts: the learner (weights and optimizer), steering
//! (commands) and measuring. Start at `trainer.rs`.

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
