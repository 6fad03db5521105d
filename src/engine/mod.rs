//! Everything that computes: the network, the loss, the optimizer, the trainer. The only module that imports Burn.
//!
//! Receives [`crate::run::RunCommand`], sends [`crate::run::RunEvent`]; never knows who listens. Start at `trainer.rs`, the method
//! itself is in `patch.rs` and `loss.rs`.

pub mod checkpoint;
mod clock;
mod decisions;
pub mod device;
mod error;
pub mod evaluate;
pub mod generate;
pub mod gradients;
mod job;
pub mod loss;
mod measure;
pub mod model;
mod obey;
pub mod optimizer;
pub mod patch;
pub mod probe;
mod prompts;
mod start;
pub mod tensor_file;
mod trainer;
mod trial;
pub mod workers;

pub use error::EngineError;
pub use job::{Job, execute};
pub use trial::measure_speeds;
