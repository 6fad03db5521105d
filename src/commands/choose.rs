//! Which directory a `run` means: a new one, one to go on with, or one to watch (contract: "Runs, names, resume").

use std::path::Path;

use crate::commands::CommandError;
use crate::run::{RunDirectory, RunState, RunSummary, is_alive};

/// What the user said about the run's name.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The configuration's name, or that of `--name`.
    pub name: &'a str,
    /// Whether it was `--name`.
    pub is_explicit: bool,
    /// `--resume`.
    pub resume: bool,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Choice {
    /// Begin in a directory that does not exist yet.
    Start(RunDirectory),
    /// Go on with what is there.
    Resume(RunDirectory),
    /// Watch the engine that is there.
    Attach(RunDirectory),
    /// There is nothing left to do.
    Completed(RunDirectory),
    /// Unfinished, and the user has not said whether to go on: go on with the first or start the second.
    Ask(RunDirectory, RunDirectory),
}

/// Decides from what is on disk.
///
/// # Errors
/// When the name is taken and the user must say what to do about it.
pub fn choose(wish: Wish<'_>, runs_dir: &Path) -> Result<Choice, CommandError> {
    if wish.is_explicit {
        return choose_named(wish, RunDirectory::new(runs_dir.join(wish.name)));
    }
    let mut newest = RunDirectory::new(runs_dir.join(wish.name));
    let mut next = newest.clone();
    for number in 2_u32.. {
        if !next.is_run() {
            break;
        }
        newest = std::mem::replace(&mut next, RunDirectory::new(runs_dir.join(format!("{}-{number}", wish.name))));
    }
    if !newest.is_run() {
        return Ok(Choice::Start(newest));
    }
    if is_alive(&newest) {
        return if wish.resume { Err(alive(&newest)) } else { Ok(Choice::Attach(newest)) };
    }
    Ok(match (state(&newest)?, wish.resume) {
        (RunState::Completed, true) => Choice::Completed(newest),
        (RunState::Completed, false) => Choice::Start(next),
        (_, true) => Choice::Resume(newest),
        (_, false) => Choice::Ask(newest, next),
    })
}

fn choose_named(wish: Wish<'_>, directory: RunDirectory) -> Result<Choice, CommandError> {
    if !directory.is_run() {
        return Ok(Choice::Start(directory));
    }
    if is_alive(&directory) {
        return Err(alive(&directory));
    }
    match (wish.resume, state(&directory)?) {
        (false, state) => Err(CommandError::usage(
            format!("the run {:?} exists ({}) in {}", wish.name, word(state), directory.path().display()),
            "add --resume to go on with it, or choose another --name",
        )),
        (true, RunState::Completed) => Ok(Choice::Completed(directory)),
        (true, _) => Ok(Choice::Resume(directory)),
    }
}

/// The error for a headless start of a run that is unfinished.
pub fn unfinished(directory: &RunDirectory) -> CommandError {
    CommandError::usage(
        format!("the run {:?} is unfinished in {}", directory.name(), directory.path().display()),
        "add --resume to go on with it, or --name to start another",
    )
}

/// The error for a run that works at this moment.
pub fn alive(directory: &RunDirectory) -> CommandError {
    CommandError::usage(format!("the run {:?} is alive", directory.name()), format!("patchtui attach {}", directory.name()))
}

fn state(directory: &RunDirectory) -> Result<RunState, CommandError> {
    RunSummary::read(directory).map(|summary| summary.state).map_err(|error| CommandError::io(directory.path(), &error))
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Alive => "alive",
        RunState::Paused => "paused",
        RunState::Completed => "completed",
        RunState::Stopped => "stopped early",
        RunState::Interrupted => "interrupted",
        RunState::Failed => "failed",
        RunState::Crashed => "crashed",
        RunState::New => "not begun",
    }
}
