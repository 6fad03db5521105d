//! `patchtui run`: check everything that can be checked, then make the directory, then start the engine.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::cli::RunArgs;
use crate::commands::choose::{Choice, Wish, alive, choose, unfinished};
use crate::commands::engine_process::Face;
use crate::commands::{CommandError, attach, engine, launch, load_config};
use crate::config::{DeviceChoice, RunConfig, identity_changes, load_resolved, to_toml};
use crate::run::{RunDirectory, RunIndex, RunLock, replace_file, sanitize_line};

/// Runs a configuration. Returns the exit code.
///
/// # Errors
/// When the question makes no sense; nothing was written then.
pub fn run(args: &RunArgs, runs_dir: &Path) -> Result<u8, CommandError> {
    let mut config = load_config(&args.config)?.config;
    if let Some(device) = &args.device {
        config.device = device.parse::<DeviceChoice>().map_err(|message| CommandError::usage(message, "use --device auto or --device cpu"))?;
    }
    if let Some(name) = &args.name {
        check_name(name)?;
        config.name.clone_from(name);
    }
    let is_headless = args.no_tui || args.json || !io::stdout().is_terminal() || !io::stdin().is_terminal();
    let wish = Wish { name: &config.name, is_explicit: args.name.is_some(), resume: args.resume };
    let directory = match choose(wish, runs_dir)? {
        Choice::Attach(directory) if is_headless => return Err(alive(&directory)),
        Choice::Attach(directory) => return attach::watch(&directory),
        Choice::Completed(directory) => {
            let _ = writeln!(io::stderr(), "{} is complete: there is nothing to resume", directory.name());
            return Ok(0);
        }
        Choice::Ask(directory, _) if is_headless => return Err(unfinished(&directory)),
        Choice::Ask(old, new) => match ask(&old, &new)? {
            Some(directory) => directory,
            None => return Ok(0),
        },
        Choice::Start(directory) | Choice::Resume(directory) => directory,
    };
    let prepared = prepare(&directory, config)?;
    prepared.warnings.iter().for_each(|warning| complain_softly(warning));
    let directory = prepared.directory;
    if is_headless {
        let face = if args.json { Face::Json } else { Face::Plain };
        return engine::run(&directory, face);
    }
    launch::spawn_engine(&directory)?;
    attach::watch(&directory)
}

/// A run directory that an engine can be started in.
pub(crate) struct Prepared {
    /// The directory with its `config.toml`.
    pub(crate) directory: RunDirectory,
    /// What the user should know.
    pub(crate) warnings: Vec<String>,
}

/// Checks everything that can be checked, then makes `directory` what `config` says; prints nothing.
pub(crate) fn prepare(directory: &RunDirectory, mut config: RunConfig) -> Result<Prepared, CommandError> {
    config.name = directory.name();
    let mut warnings = if directory.is_run() { check_identity(directory, &config)? } else { Vec::new() };
    engine::check(&config)?;
    let directory = prepare_directory(directory, &config)?;
    if let Err(error) = RunIndex::of_user().add(&directory) {
        warnings.push(format!("the run will only be found from this folder: {error}"));
    }
    Ok(Prepared { directory, warnings })
}

fn complain_softly(warning: &str) {
    let _ = writeln!(io::stderr(), "warning: {}", sanitize_line(warning));
}

/// Makes the directory with its `config.toml`.
fn prepare_directory(directory: &RunDirectory, config: &RunConfig) -> Result<RunDirectory, CommandError> {
    let io = |error: io::Error| CommandError::io(directory.path(), &error);
    let is_new = !directory.path().exists();
    let created = RunDirectory::create(directory.path()).map_err(io)?;
    // Of two starts at the same moment, only one may say what the run is.
    let _lock = RunLock::acquire(&created)?;
    if let Err(error) = replace_file(&created.config(), to_toml(config).as_bytes()) {
        if is_new {
            // A run without its configuration would only be in the way of the next try.
            let _ = fs::remove_dir_all(created.path());
        }
        return Err(io(error));
    }
    Ok(created)
}

/// Refuses what would make a resumed run another run, and returns warnings of what makes it inexact.
fn check_identity(directory: &RunDirectory, config: &RunConfig) -> Result<Vec<String>, CommandError> {
    let old = load_resolved(&directory.config())?;
    let changes = identity_changes(&old, config);
    if let Some(first) = changes.first() {
        let more = if changes.len() > 1 { format!(" (and {} more)", changes.len() - 1) } else { String::new() };
        return Err(CommandError::usage(
            format!("{} is {} in the run {:?} and {} now{more}: resuming it would make it another run", first.key, first.old, directory.name(), first.new),
            "leave the change out, or start a new run with --name",
        ));
    }
    let micro_batches = |config: &RunConfig| config.stages.iter().map(|stage| stage.micro_batch_size).collect::<Vec<_>>();
    let inexact = [
        ("training.micro_batch_size", old.training.micro_batch_size != config.training.micro_batch_size || micro_batches(&old) != micro_batches(config)),
        ("threads", old.threads != config.threads),
        ("device", old.device != config.device),
    ];
    let warning = |(key, _): &(&str, bool)| format!("{key} has changed: the run goes on, but not bit for bit as it would have");
    Ok(inexact.iter().filter(|(_, changed)| *changed).map(warning).collect())
}

/// Asks what to do about an unfinished run; `None` if nothing.
fn ask(old: &RunDirectory, new: &RunDirectory) -> Result<Option<RunDirectory>, CommandError> {
    let io = |error: io::Error| CommandError::io(old.path(), &error);
    let mut out = io::stderr();
    write!(out, "{} is unfinished. Go on with it [r], start {} [n], or do nothing [q]? ", old.name(), new.name()).and_then(|()| out.flush()).map_err(io)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(io)?;
    Ok(match line.trim().to_ascii_lowercase().as_str() {
        "" | "r" | "resume" => Some(old.clone()),
        "n" | "new" => Some(new.clone()),
        _ => None,
    })
}

fn check_name(name: &str) -> Result<(), CommandError> {
    if crate::config::is_plain_name(name) {
        return Ok(());
    }
    Err(CommandError::usage(format!("--name {name:?} is not a plain file name"), "use letters, digits, dots and dashes"))
}

/// Where prepared text is kept for all runs of a folder.
pub fn token_cache(directory: &RunDirectory) -> PathBuf {
    directory.path().parent().unwrap_or(Path::new(".")).join(".tokens")
}
