//! `patchtui bench`: speed and memory, measured without a run.

use crate::advice::Failure;
use crate::bench::{eval, prepare, train};
use crate::cli::{BenchArgs, BenchCommand, BenchTrainArgs, ConfigArgs};
use crate::commands::devices::open_device;
use crate::commands::{Runs, load_config, parse_device};
use crate::config::RunConfig;

/// Runs the benchmark that the command line names. Returns the exit code.
///
/// # Errors
/// When the configuration has no valid plan, the device fails, or the other framework is missing.
pub fn bench(args: BenchArgs, runs: &Runs) -> Result<u8, Failure> {
    match args.command {
        Some(BenchCommand::Prepare(args)) => {
            let named = named(args.config.as_deref().unwrap_or("demo"), &args.sets);
            prepare(&args, load_config(&named, runs)?.config)
        }
        Some(BenchCommand::Eval(args)) => {
            let config = on_device(&args.config, args.device.as_deref(), runs)?;
            eval(&args, config, open_device)
        }
        Some(BenchCommand::Train(args)) => train_steps(&args, runs),
        None => train_steps(&args.train, runs),
    }
}

fn train_steps(args: &BenchTrainArgs, runs: &Runs) -> Result<u8, Failure> {
    let config = args.config.as_deref().ok_or_else(|| {
        Failure::usage(
            "there is nothing to measure",
            "name a configuration, e.g. patchtui bench demo",
        )
    })?;
    let config = on_device(&named(config, &args.sets), args.device.as_deref(), runs)?;
    train(args, config, open_device)
}

fn named(config: &str, sets: &[String]) -> ConfigArgs {
    ConfigArgs { config: config.to_owned(), sets: sets.to_vec() }
}

/// The configuration, with the device of --device.
fn on_device(args: &ConfigArgs, device: Option<&str>, runs: &Runs) -> Result<RunConfig, Failure> {
    let mut config = load_config(args, runs)?.config;
    if let Some(device) = device {
        config.device = parse_device(device)?;
    }
    Ok(config)
}
