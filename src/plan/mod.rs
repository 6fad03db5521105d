//! The plan that follows from a configuration: stages, steps, learning rates, costs, memory, disk.
//!
//! Pure arithmetic: no files, no clock, no device. Start at [`RunPlan::new`].

mod build;
mod cost;
mod duration;
mod error;
mod fit;
mod memory;
mod remarks;
mod schedule;
mod stage;
#[cfg(test)]
mod tests;

pub use crate::config::ModelShape;
pub use build::{Corpus, DeviceKind, GENERATED_TOKENS, RunPlan, block_tokens};
pub use cost::Cost;
pub use duration::{Measured, Reached, RunSeconds, StageSpeed};
pub use error::PlanError;
pub use memory::{ATTENTION_QUERIES, HEAD_ROWS, Memory, MemoryNeed};
pub use schedule::Schedule;
pub use stage::{Cadences, CostedStage, Span, StagePlan, cost_after, stage_idx_after};
