//! Everything that computes: the network, the loss, the optimizer, the trainer. The only module that imports Burn.
//!
//! Receives [`crate::run::RunCommand`], sends [`crate::run::RunEvent`]; never knows who listens. Start at `trainer.rs`, the method
//! itself is in `step.rs` and `ops/`.

pub mod accumulate;
pub mod batch;
pub mod checkpoint;
mod clock;
mod decisions;
pub mod device;
mod error;
pub mod evaluate;
pub mod generate;
pub mod gradients;
mod job;
mod measure;
pub mod model;
pub mod named_tensor;
mod obey;
pub mod ops;
pub mod optimizer;
pub mod probe;
mod prompts;
mod start;
pub mod step;
pub mod tensor_file;
mod trainer;
mod trial;
pub mod workers;

pub use error::EngineError;
pub use job::{Job, execute};
pub use trial::measure_speeds;
