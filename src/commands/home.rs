//! `patchtui` without arguments: the list of runs, to attach to, resume or start one.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use crate::advice::Failure;
use crate::cli::ConfigArgs;
use crate::commands::attach::{no_screen, show};
use crate::commands::engine::check;
use crate::commands::runs::{list, summaries_since};
use crate::commands::{Runs, load_config, sender_name};
use crate::config::RunConfig;
use crate::control::{connect, follow};
use crate::host::{
    Claim, HostError, Wish, altered, claim, claim_directory, claim_existing, launch, run_config,
};
use crate::record::RunDirectory;
use crate::tui::{Access, HomeActions, Opening, Refusal};

/// What to do if no screen can be shown.
const INSTEAD: &str = "list the runs with: patchtui runs";

/// Shows the list of runs until the user quits; without a terminal, prints it. Returns the exit
/// code.
///
/// # Errors
/// When the terminal cannot show a screen, or it fails.
pub fn home(runs: Runs) -> Result<u8, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        list(&runs, false)?;
        return Ok(0);
    }
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::Unsupported => no_screen(&error.to_string(), INSTEAD),
        _ => Failure::failed(format!("cannot use the terminal: {error}"), INSTEAD),
    };
    show(|| Opening::Home(actions(runs))).map_err(broken)?;
    Ok(0)
}

fn actions(runs: Runs) -> HomeActions {
    let runs_to_start = runs.clone();
    HomeActions {
        list: Arc::new(move |known| summaries_since(known, &runs)),
        resume: Arc::new(|directory| resume(directory).map_err(refusal)),
        start: Arc::new(move |config| start(config, &runs_to_start).map_err(refusal)),
        listen: Arc::new(|directory, access| match access {
            Access::Steer => connect(directory.clone(), sender_name("keyboard")),
            Access::Read => follow(directory.clone(), altered),
        }),
    }
}

fn refusal(error: Failure) -> Refusal {
    Refusal { message: error.message, hint: error.hint }
}

/// Resumes an unfinished run with its own configuration.
fn resume(directory: &RunDirectory) -> Result<RunDirectory, Failure> {
    match claim_existing(directory) {
        Err(HostError::Alive { directory }) => Ok(directory),
        Ok(Claim::Completed(directory)) => Err(Failure::usage(
            format!("{} has completed: there is nothing to resume", directory.name()),
            "press n to start a new run",
        )),
        claimed => begin(claimed?, run_config(directory)?),
    }
}

/// Starts a configuration under the first free name; attaches to a run that is already running.
fn start(config: &str, runs: &Runs) -> Result<RunDirectory, Failure> {
    let config =
        load_config(&ConfigArgs { config: config.to_owned(), sets: Vec::new() }, runs)?.config;
    match claim(Wish { name: &config.name, is_explicit: false, resume: false }, &runs.folder)? {
        Claim::Alive(directory) => Ok(directory),
        Claim::Unfinished { new, .. } => begin(claim_directory(new, false)?, config),
        claimed => begin(claimed, config),
    }
}

fn begin(claimed: Claim, config: RunConfig) -> Result<RunDirectory, Failure> {
    // The screen of the run follows and has no place for warnings of its start; what cannot work
    // was refused.
    launch(claimed.ready()?, config, check).map(|launched| launched.directory)
}
