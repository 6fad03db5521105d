//! `patchtui run` and `patchtui resume`: claim a directory, check everything that can be checked,
//! start the engine.

use std::io::{self, BufRead, Write};
use std::path::Path;

use crate::advice::Failure;
use crate::cli::{ConfigArgs, ResumeArgs, RunArgs};
use crate::commands::engine::{Foreground, Shown};
use crate::commands::{Runs, attach, engine, find_checkpoint, load_config, parse_device};
use crate::config::{RunConfig, is_plain_name};
use crate::host::{
    Claim, HostError, Launched, Wish, claim, claim_directory, claim_existing, launch, run_config,
};
use crate::machine::terminal::screen_problem;
use crate::record::{FoundCheckpoint, RunDirectory, RunIndex, RunState, RunSummary};
use crate::text::sanitize_line;

/// Runs a configuration. Returns the exit code.
///
/// # Errors
/// When the run cannot be started; nothing was written then.
pub fn run(args: &RunArgs, runs: &Runs) -> Result<u8, Failure> {
    let mut config = requested_config(args, runs)?;
    if let Some(device) = &args.device {
        config.device = parse_device(device)?;
    }
    if let Some(name) = &args.name {
        check_name(name)?;
        config.name.clone_from(name);
    }
    let foreground = foreground(args.no_tui, args.json);
    if args.from.is_some() && args.name.is_none() {
        config.name = free_name(&config.name, &runs.folder);
    }
    let wish = Wish {
        name: &config.name,
        is_explicit: args.name.is_some() || args.from.is_some(),
        resume: args.resume,
    };
    let claimed = claim(wish, &runs.folder)?;
    go_on(claimed, config, foreground)
}

/// The configuration that the command line names.
fn requested_config(args: &RunArgs, runs: &Runs) -> Result<RunConfig, Failure> {
    let mut named =
        ConfigArgs { config: args.config.clone().unwrap_or_default(), sets: args.sets.clone() };
    if let Some(checkpoint) = &args.from {
        let found = FoundCheckpoint::at(&find_checkpoint(checkpoint, runs)?)?;
        let set = |key: &str, path: &Path| {
            format!("{key}={}", toml::Value::String(path.to_string_lossy().into_owned()))
        };
        if args.config.is_none() {
            named.config = found.run.config().to_string_lossy().into_owned();
            // Both files may be gone; the run has its own copy of the tokenizer, and the checkpoint
            // has the weights.
            named.sets.insert(0, "model.init_from=default".into());
            if found.run.tokenizer().is_file() {
                named.sets.insert(0, set("data.tokenizer", &found.run.tokenizer()));
            }
        }
        named.sets.push(set("training.fork_from", &found.checkpoint.path));
    }
    Ok(load_config(&named, runs)?.config)
}

/// `name` with the first numeric suffix that is free in `folder`.
fn free_name(name: &str, folder: &Path) -> String {
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !folder.join(name).exists()).expect("there are more numbers than runs")
}

/// Resumes an unfinished run, wherever it is. Returns the exit code.
///
/// # Errors
/// When there is no such run, or it cannot be resumed.
pub fn resume(args: &ResumeArgs, runs: &Runs) -> Result<u8, Failure> {
    let directory = match &args.run {
        Some(text) => runs.find(text)?,
        None => newest_unfinished(runs)?,
    };
    resume_directory(&directory, foreground(args.no_tui, args.json))
}

/// Resumes the run in `directory` with its own configuration.
///
/// # Errors
/// When it cannot be resumed.
pub fn resume_directory(
    directory: &RunDirectory,
    foreground: Option<Foreground>,
) -> Result<u8, Failure> {
    let claimed = claim_existing(directory)?;
    let config = run_config(directory)?;
    go_on(claimed, config, foreground)
}

fn go_on(claimed: Claim, config: RunConfig, foreground: Option<Foreground>) -> Result<u8, Failure> {
    let claimed = match (claimed, foreground) {
        (Claim::Ready(claimed), _) => claimed,
        (Claim::Completed(directory), _) => {
            let _ = writeln!(
                io::stderr(),
                "{} has completed: there is nothing to resume",
                sanitize_line(&directory.name())
            );
            return Ok(0);
        }
        (Claim::Alive(directory), Some(_)) => return Err(HostError::Alive { directory }.into()),
        (Claim::Alive(directory), None) => return attach::watch(&directory),
        (Claim::Unfinished { old, .. }, Some(_)) => return Err(unfinished(&old)),
        (Claim::Unfinished { old, new }, None) => match ask(&old, &new)? {
            Some(Answer::Resume) => claim_directory(old, true)?.ready()?,
            Some(Answer::New) => claim_directory(new, false)?.ready()?,
            None => return Ok(0),
        },
    };
    let Some(foreground) = foreground else {
        let Launched { directory, warnings } = launch(claimed, config, engine::check)?;
        warn(&warnings);
        return attach::watch(&directory);
    };
    let (directory, lock, warnings) =
        claimed.prepare(config, &RunIndex::of_user(), engine::check)?;
    warn(&warnings);
    engine::run(&directory, lock, Shown::Foreground(foreground))
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "warning: {}", sanitize_line(warning));
    }
}

/// If no screen can be shown, or on request, the engine runs in the foreground.
fn foreground(no_tui: bool, json: bool) -> Option<Foreground> {
    let is_headless = no_tui || json || screen_problem().is_some();
    is_headless.then_some(if json { Foreground::Json } else { Foreground::Plain })
}

/// The user's choice for an unfinished run.
enum Answer {
    Resume,
    New,
}

/// Asks what to do with an unfinished run; `None` to quit.
fn ask(old: &RunDirectory, new: &RunDirectory) -> Result<Option<Answer>, Failure> {
    let io = |error: io::Error| Failure::io(old.path(), &error);
    let mut out = io::stderr();
    let (old_name, new_name) = (sanitize_line(&old.name()), sanitize_line(&new.name()));
    write!(out, "{old_name} is unfinished. Resume it [r], start {new_name} [n], or quit [q]? ")
        .and_then(|()| out.flush())
        .map_err(io)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(io)?;
    Ok(match line.trim().to_ascii_lowercase().as_str() {
        "" | "r" | "resume" => Some(Answer::Resume),
        "n" | "new" => Some(Answer::New),
        _ => None,
    })
}

/// The newest run that is neither running nor completed.
fn newest_unfinished(runs: &Runs) -> Result<RunDirectory, Failure> {
    let is_unfinished = |run: &RunDirectory| {
        RunSummary::read(run).is_ok_and(|summary| {
            !matches!(summary.state, RunState::Alive | RunState::Paused | RunState::Completed)
        })
    };
    let found = runs.index.all(&runs.folder).into_iter().find(is_unfinished);
    found.ok_or_else(|| {
        Failure::usage("there is no unfinished run", "list all runs with: patchtui runs")
    })
}

/// The error for a headless start of a run that is unfinished.
fn unfinished(directory: &RunDirectory) -> Failure {
    Failure::usage(
        format!("the run {:?} is unfinished in {}", directory.name(), directory.path().display()),
        "add --resume to continue it, or --name to start another",
    )
}

fn check_name(name: &str) -> Result<(), Failure> {
    if is_plain_name(name) {
        return Ok(());
    }
    Err(Failure::usage(
        format!("--name {name:?} is not a plain file name"),
        "use letters, digits, dots and dashes",
    ))
}
