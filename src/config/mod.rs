//! The configuration: plain data from several layers; unknown keys are refused.
//!
//! Layers: defaults, a preset, the file that is extended, the file itself, `--set`. Start at
//! [`RunConfig`] for the data, at [`KEYS`] for every key, at [`load`] for reading.

mod schema;
mod shape;
mod threshold;
mod values;

mod keys;
mod kind;
mod nearest;
mod presets;

mod load;

mod source;

mod layers;

mod resolve;

mod check;
mod error;

mod hugging_face;
mod init_from;

mod identity;
mod template;
mod toml_line;

pub use error::{ConfigError, Origin};
pub use hugging_face::{CONFIG_FILE, LlamaConfig, LlamaConfigError, token_ids};
pub use identity::{
    IdentityChange, RecordedConfig, config_texts, flat_values, identity_changes, inexact_changes,
    recorded_config, trained_config,
};
pub use init_from::FindRun;
pub use keys::{Change, KEYS, Key, KeyGroup, Need};
pub use kind::{Range, ValueKind, is_plain_name};
pub use load::{LoadRequest, load, load_with_runs};
pub use presets::{PRESETS, Preset};
pub use resolve::{LoadedConfig, load_resolved, to_toml};
pub use schema::{
    ActivationTensor, ActivationsConfig, Budget, CheckpointConfig, DataConfig, EvaluationConfig,
    ModelConfig, OnUsr1, OptimizerConfig, OptimizerState, Precision, ReportConfig, RunConfig,
    SamplesConfig, ScheduleConfig, ScheduleKind, StageConfig, TasksConfig, TextGenerator,
    TextSource, TrainingConfig, ValidationSource,
};
pub use shape::ModelShape;
pub use source::{BUILT_IN, built_in_names};
pub use template::template;
pub use threshold::ActivationThreshold;
pub use toml_line::toml_line;
pub use values::{Cadence, Count, DeviceChoice, PatchSize, Share, TokenLimit, WallTime};
