//! What follows from a configuration: stages, steps, learning rates, costs, memory, disk.
//!
//! Pure arithmetic: no files, no clock, no device. Start at [`RunPlan::new`].

mod build;
mod cost;
mod error;
mod schedule;
mod stage;
#[cfg(test)]
mod tests;

pub use build::{Corpus, RunPlan, block_tokens};
pub use cost::{Cost, Memory, ModelShape};
pub use error::PlanError;
pub use schedule::Schedule;
pub use stage::{Cadences, StagePlan};
