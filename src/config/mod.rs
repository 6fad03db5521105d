//! What the user wrote: plain data, in layers, unknown keys refused.
//!
//! Knows TOML and text; never tokens, tensors or runs. Start at [`RunConfig`] for what there is.

mod schema;
mod values;

pub use schema::{
    ActivationTensor, ActivationsConfig, Budget, CheckpointConfig, DataConfig, EvaluationConfig, Generator, ModelConfig, OnUsr1, OptimizerConfig,
    OptimizerState, Precision, ReportConfig, RunConfig, SamplesConfig, ScheduleConfig, ScheduleKind, StageConfig, TextSource, TrainingConfig, ValidationSource,
};
pub use values::{Cadence, Count, DeviceChoice, PatchSize, Share, WallTime};
