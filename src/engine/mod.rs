//! Everything that computes: the network, the loss, the optimizer, the trainer. The only module
//! that imports Burn.
//!
//! Receives [`crate::record::RunCommand`] and sends [`crate::record::RunEvent`]. Start at
//! `train/trainer.rs`; the method itself is in `step.rs` and `ops/`.

mod train;

pub mod activations;
pub mod allocator;
pub mod batch;
pub mod checkpoint;
pub mod compute;
pub mod device;
mod error;
pub mod evaluate;
pub mod export;
pub mod faults;
pub mod generate;
pub mod gradients;
pub mod hugging_face;
pub mod instruction_set;
pub mod kernels;
pub mod matmul_peak;
pub mod model;
pub mod named_tensor;
pub mod objective;
mod open;
pub mod ops;
pub mod optimizer;
mod patch_stage;
pub mod positions;
pub mod probe;
mod scalar;
pub mod score;
pub mod self_check;
pub mod step;
pub mod tensor_file;
pub mod tensor_header;
mod trial;
mod user_cache;
pub mod workers;

pub use error::EngineError;
pub use open::{LoadedModel, ModelFiles, ModelOrigin, OpenError};
pub use patch_stage::PatchStage;
pub use train::{BenchSteps, Job, PartTimes, StageTimes, StepBench, execute};
