//! Checks a run before anything is written: text, tokenizer, numbers, device, memory, disk.

use std::path::{Path, PathBuf};

use crate::advice::Failure;
use crate::config::RunConfig;
use crate::data::{Inputs, PrepareRequest, TextRules};
use crate::host::{check_memory, plan_before_preparation};
use crate::machine::memory::available_memory;
use crate::plan::{DeviceKind, block_tokens};
use crate::record::{Checkpoints, RunDirectory};
use crate::tasks::Suite;

/// What only the engine can check.
#[derive(Debug, Clone, Copy)]
pub struct EngineChecks {
    /// Opens the device of a configuration. Returns whether it is the CPU.
    pub device: fn(&RunConfig) -> Result<bool, Failure>,
    /// Opens the initial weights of a new run.
    pub weights: fn(&Path) -> Result<(), Failure>,
}

/// Checks everything that can be checked before anything is written.
///
/// `directory` is the future run directory. Returns warnings for the user.
///
/// # Errors
/// The first check that fails.
pub fn check(
    config: &RunConfig,
    directory: &RunDirectory,
    engine: EngineChecks,
) -> Result<Vec<String>, Failure> {
    let is_cpu = (engine.device)(config)?;
    let checkpoints = Checkpoints::new(directory, 0);
    let newest = checkpoints.newest_claimed();
    // A run that has a checkpoint does not need its initial weights any more.
    if let (Some(path), None) = (&config.model.init_from, &newest) {
        (engine.weights)(path)?;
    }
    let rules = checkpoints
        .text_rules(config.training.fork_from.as_deref())
        .and_then(TextRules::of_version)
        .unwrap_or_default();
    let inputs = Inputs::find_by(&config.data, rules)?;
    let plan = plan_before_preparation(config, Some(inputs.tokenizer()), DeviceKind::of(is_cpu))?;
    let mut warnings = Vec::new();
    if let (true, Some(plan), Some(available)) = (is_cpu, &plan, available_memory()) {
        warnings.extend(check_memory(config, plan, available)?);
    }
    let trained_on = newest.map(|checkpoint| checkpoint.state.data_fingerprint);
    let request = PrepareRequest {
        data: &config.data,
        seed: config.seed,
        generated_tokens: plan.map_or(0, |plan| plan.cost.tokens),
        block_tokens: block_tokens(config)?,
        cache: &token_cache(directory),
        trained_on: trained_on.as_deref(),
        rules,
    };
    warnings.extend(inputs.check_sizes(&request)?);
    Suite::load(&config.tasks.names, config.tasks.data.as_deref(), config.tasks.limit)?;
    Ok(warnings)
}

/// The cache of prepared text that all runs of a folder share.
#[must_use]
pub fn token_cache(directory: &RunDirectory) -> PathBuf {
    directory.path().parent().unwrap_or(Path::new(".")).join(".tokens")
}
