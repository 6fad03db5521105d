//! Checks a run and starts its engine.

use crate::advice::Failure;
use crate::config::RunConfig;
use crate::host;
use crate::record::RunDirectory;

#[cfg(feature = "engine")]
pub use with_burn::run;
#[cfg(not(feature = "engine"))]
pub use without_burn::{no_engine, run};

#[cfg(feature = "engine")]
use with_burn::CHECKS;
#[cfg(not(feature = "engine"))]
use without_burn::CHECKS;

/// Output format of a run in the foreground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreground {
    /// Lines for people on the standard output.
    Plain,
    /// JSON lines on the standard output.
    Json,
}

/// How a run is shown.
#[derive(Debug)]
pub enum Shown {
    /// By the output of this process.
    Foreground(Foreground),
    /// By its clients, which also learn what the user should know about its start.
    Background {
        /// Warnings of the checks.
        warnings: Vec<String>,
    },
}

/// Checks everything that can be checked before anything is written; returns warnings for the user.
///
/// # Errors
/// The first check that fails.
pub fn check(config: &RunConfig, directory: &RunDirectory) -> Result<Vec<String>, Failure> {
    host::check(config, directory, CHECKS)
}

#[cfg(feature = "engine")]
mod with_burn {
    use super::{Failure, Foreground, RunDirectory, Shown};
    use crate::commands::devices::open_device;
    use crate::disk::Disk;
    use crate::engine::allocator::keep_freed_memory;
    use crate::engine::device::BUILT_IN;
    use crate::engine::faults::log_panics;
    use crate::engine::self_check::Cache;
    use crate::engine::{Job, ModelFiles, execute};
    use crate::host::{EngineChecks, EngineSetup, Face, engine_config, run_engine, token_cache};
    use crate::machine::devices::resolve;
    use crate::record::{RunIndex, RunLock};
    use crate::report::{Json, Plain, stdout};
    use tracing::Level;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;

    /// What the engine checks before a run is written.
    pub(super) const CHECKS: EngineChecks = EngineChecks {
        device: |config| {
            let device = open_device(config.device)?;
            device.check_precision(config.training.precision)?;
            Ok(device.is_cpu)
        },
        weights: |path| {
            ModelFiles::find(path)?.weights()?;
            Ok(())
        },
    };

    /// Trains the run in this process until it ends. Returns the exit code.
    ///
    /// # Errors
    /// When the run's files cannot be used.
    pub fn run(directory: &RunDirectory, lock: RunLock, shown: Shown) -> Result<u8, Failure> {
        keep_freed_memory();
        log_panics(directory.engine_log());
        log_messages();
        let mut config = engine_config(directory)?;
        let (device, device_reason) = resolve(config.device, BUILT_IN)?;
        config.device = device;
        let (face, warnings) = match shown {
            Shown::Foreground(foreground) => (Some(face(foreground)), Vec::new()),
            Shown::Background { warnings } => (None, warnings),
        };
        let setup = EngineSetup {
            directory: directory.clone(),
            lock,
            on_usr1: config.checkpoint.on_usr1,
            face,
            warnings,
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
    use super::{Failure, RunDirectory, Shown};
    use crate::host::EngineChecks;
    use crate::record::RunLock;

    /// A run cannot be started.
    pub(super) const CHECKS: EngineChecks =
        EngineChecks { device: |_| Err(no_engine()), weights: |_| Err(no_engine()) };

    /// This build has no engine.
    ///
    /// # Errors
    /// Always.
    pub fn run(_directory: &RunDirectory, _lock: RunLock, _shown: Shown) -> Result<u8, Failure> {
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
