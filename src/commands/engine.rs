//! Checks a run and starts its engine. The only module that handles builds without the engine.

use std::path::{Path, PathBuf};

use crate::advice::Failure;
use crate::commands::capacity::check_memory;
use crate::config::RunConfig;
use crate::data::{Inputs, PrepareRequest, TextRules};
use crate::host::plan_before_preparation;
use crate::machine::memory::available_memory;
use crate::plan::block_tokens;
use crate::record::{Checkpoints, RunDirectory};
use crate::tasks::Suite;

#[cfg(feature = "engine")]
pub use with_burn::run;
#[cfg(not(feature = "engine"))]
pub use without_burn::{no_engine, run};

/// Output format of a run in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreground {
    /// Lines for people on the standard output.
    Plain,
    /// JSON lines on the standard output.
    Json,
}

/// Checks everything that can be checked before anything is written: text, tokenizer, numbers,
/// device, memory, disk.
///
/// `directory` is the future run directory. Returns warnings for the user.
///
/// # Errors
/// The first check that fails.
pub fn check(config: &RunConfig, directory: &RunDirectory) -> Result<Vec<String>, Failure> {
    let is_cpu = check_device(config)?;
    check_initial_weights(config, directory)?;
    let rules = Checkpoints::new(directory, 0)
        .text_rules(config.training.fork_from.as_deref())
        .and_then(TextRules::of_version)
        .unwrap_or_default();
    let inputs = Inputs::find_by(&config.data, rules)?;
    let plan = plan_before_preparation(config, Some(inputs.tokenizer()), is_cpu)?;
    let mut warnings = Vec::new();
    if let (true, Some(plan), Some(available)) = (is_cpu, &plan, available_memory()) {
        warnings.extend(check_memory(config, plan, available)?);
    }
    let trained_on = Checkpoints::new(directory, 0)
        .newest_claimed()
        .map(|checkpoint| checkpoint.state.data_fingerprint);
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

/// Whether the run computes on the CPU.
#[cfg(feature = "engine")]
fn check_device(config: &RunConfig) -> Result<bool, Failure> {
    let device = crate::commands::devices::open_device(config.device)?;
    device.check_precision(config.training.precision)?;
    Ok(device.is_cpu)
}

#[cfg(not(feature = "engine"))]
fn check_device(_config: &RunConfig) -> Result<bool, Failure> {
    Err(without_burn::no_engine())
}

/// Checks the initial weights of a new run; a run that has a checkpoint does not need them any
/// more.
#[cfg(feature = "engine")]
fn check_initial_weights(config: &RunConfig, directory: &RunDirectory) -> Result<(), Failure> {
    if let Some(path) = config
        .model
        .init_from
        .as_ref()
        .filter(|_| Checkpoints::new(directory, 0).newest_claimed().is_none())
    {
        crate::engine::ModelFiles::find(path)?.weights()?;
    }
    Ok(())
}

#[cfg(not(feature = "engine"))]
fn check_initial_weights(_config: &RunConfig, _directory: &RunDirectory) -> Result<(), Failure> {
    Err(without_burn::no_engine())
}

/// The cache of prepared text that all runs of a folder share.
pub(super) fn token_cache(directory: &RunDirectory) -> PathBuf {
    directory.path().parent().unwrap_or(Path::new(".")).join(".tokens")
}

#[cfg(feature = "engine")]
mod with_burn {
    use super::{Failure, Foreground, RunDirectory, token_cache};
    use crate::disk::Disk;
    use crate::engine::allocator::keep_freed_memory;
    use crate::engine::device::BUILT_IN;
    use crate::engine::faults::log_panics;
    use crate::engine::self_check::Cache;
    use crate::engine::{Job, execute};
    use crate::host::{EngineSetup, Face, engine_config, run_engine};
    use crate::machine::devices::resolve;
    use crate::record::{RunIndex, RunLock};
    use crate::report::{Json, Plain, stdout};
    use tracing::Level;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    /// Trains the run in this process until it ends; in the background if `foreground` is `None`.
    /// Returns the exit code.
    ///
    /// # Errors
    /// When the run's files cannot be used.
    pub fn run(
        directory: &RunDirectory,
        lock: RunLock,
        foreground: Option<Foreground>,
    ) -> Result<u8, Failure> {
        keep_freed_memory();
        log_panics(directory.engine_log());
        log_messages();
        let mut config = engine_config(directory)?;
        let (device, device_reason) = resolve(config.device, BUILT_IN)?;
        config.device = device;
        let face = foreground.map(face);
        let setup = EngineSetup {
            directory: directory.clone(),
            lock,
            on_usr1: config.checkpoint.on_usr1,
            face,
            index: RunIndex::of_user(),
        };
        let job = Job {
            config,
            directory: directory.path().to_owned(),
            cache: token_cache(directory),
            checks: Cache::of_user(),
            device_reason,
            disk: Disk::default(),
        };
        Ok(run_engine(setup, move |inbox, events| execute(job, inbox, &events))?)
    }

    /// Logs go to standard error, which is engine.log in the background. Only warnings of libraries
    /// are logged: the GPU libraries report every kernel that they tune. If standard error is
    /// on a full disk, the run continues without printing.
    fn log_messages() {
        let levels = Targets::new().with_default(Level::WARN).with_target("patchtui", Level::INFO);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .log_internal_errors(false);
        let _ = tracing_subscriber::registry().with(lines).with(levels).try_init();
    }

    fn face(foreground: Foreground) -> Face {
        match foreground {
            Foreground::Plain => {
                let mut plain = Plain::new(stdout());
                Box::new(move |record| plain.show(&record))
            }
            Foreground::Json => {
                let mut json = Json::new(stdout());
                Box::new(move |record| json.show(&record))
            }
        }
    }
}

#[cfg(not(feature = "engine"))]
mod without_burn {
    use super::{Failure, Foreground, RunDirectory};
    use crate::record::RunLock;

    /// This build has no engine.
    ///
    /// # Errors
    /// Always.
    pub fn run(
        _directory: &RunDirectory,
        _lock: RunLock,
        _foreground: Option<Foreground>,
    ) -> Result<u8, Failure> {
        Err(no_engine())
    }

    /// Error of a build without the engine.
    pub fn no_engine() -> Failure {
        Failure::usage(
            "this patchtui was built without its engine: it can attach to runs, but not train",
            "build it without --no-default-features",
        )
    }
}
