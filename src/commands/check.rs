//! `patchtui doctor --check`: compares a device with the CPU, on the shapes of a configuration.
//!
//! Needs no text; without the tokenizer it assumes the paper's vocabulary size. Start at
//! [`check_device`].

use crate::advice::Failure;
use crate::cli::ConfigArgs;
use crate::commands::devices::open_device;
use crate::commands::{Runs, load_config};
use crate::config::DeviceChoice;
use crate::data::{DataError, Tokenizer};
use crate::engine::faults::guarded;
use crate::engine::self_check::{Cache, Report, check, shapes};
use crate::host::plan_before_preparation;
use crate::plan::{DeviceKind, PlanError};
use crate::report::tell;

/// Compares `choice` with the CPU, ignoring cached results.
///
/// # Errors
/// When the configuration has no plan, or the device is missing or fails.
pub fn check_device(
    config: &ConfigArgs,
    choice: DeviceChoice,
    runs: &Runs,
) -> Result<Report, Failure> {
    let config = load_config(config, runs)?.config;
    let tokenizer = match Tokenizer::load(&config.data.tokenizer) {
        Ok(tokenizer) => Some(tokenizer),
        Err(DataError::NoTokenizerFile { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let device = open_device(choice)?;
    let plan = plan_before_preparation(&config, tokenizer.as_ref(), DeviceKind::of(device.is_cpu))?
        .ok_or(PlanError::CorpusUnknown)?;
    tell(&format!(
        "comparing {} with {} ...",
        device.description,
        if device.is_cpu { "double precision" } else { "the CPU" }
    ));
    device.check_precision(config.training.precision)?;
    let shapes = shapes(&plan, config.training.precision);
    let report =
        guarded(device.is_cpu, || Ok(check(&device, &shapes, &Cache::none(), &mut |_, _| true)?))?;
    report.ok_or_else(|| Failure::failed("the check did not run", "try again"))
}
