//! Finds the directory for a start and locks it: a new one, one to resume, or one to attach to.
//!
//! A directory is inspected only while holding its lock, so that two starts of one name cannot both
//! find it free.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::HostError;
use crate::record::files::create_directory;
use crate::record::{Liveness, LockError, RunDirectory, RunLock, RunState, RunSummary, is_alive};

/// How often a directory is created again after another start has removed it.
const TRIES: usize = 5;

/// The requested name of a run.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The configuration's name, or that of `--name`.
    pub name: &'a str,
    /// Whether it comes from `--name`.
    pub is_explicit: bool,
    /// `--resume`.
    pub resume: bool,
}

/// What a start can do with the directory.
#[derive(Debug)]
pub enum Claim {
    /// Begin in this directory, or resume the run in it.
    Ready(ClaimedRun),
    /// An engine is already running there.
    Alive(RunDirectory),
    /// The run is completed: there is nothing to resume.
    Completed(RunDirectory),
    /// The run is unfinished, and the user must choose between resuming it and starting a new one.
    Unfinished {
        /// The unfinished run.
        old: RunDirectory,
        /// Directory under a free name.
        new: RunDirectory,
    },
}

/// A run directory whose lock this process holds.
#[derive(Debug)]
pub struct ClaimedRun {
    pub(super) directory: RunDirectory,
    pub(super) lock: RunLock,
    /// Folders created for it, outermost first; none for an existing run.
    made: Vec<PathBuf>,
}

/// Finds the directory for `wish`, locks it, and decides what may be done with it.
///
/// # Errors
/// When the name is taken and the user must decide what to do; nothing was written then.
pub fn claim(wish: Wish<'_>, runs_dir: &Path) -> Result<Claim, HostError> {
    if wish.is_explicit {
        return claim_directory(RunDirectory::new(runs_dir.join(wish.name)), wish.resume);
    }
    let (newest, next) = newest_and_next(wish.name, runs_dir);
    let claimed = match ClaimedRun::lock(newest.clone()) {
        Err(HostError::Alive { .. }) if !wish.resume => return Ok(Claim::Alive(newest)),
        Err(_) if is_complete_for_good(&newest) => {
            return if wish.resume {
                Ok(Claim::Completed(newest))
            } else {
                claim_directory(next, false)
            };
        }
        locked => locked?,
    };
    match (claimed.state()?, wish.resume) {
        (Some(RunState::Completed), true) => Ok(Claim::Completed(newest)),
        (None, _) | (Some(_), true) => Ok(Claim::Ready(claimed)),
        (Some(RunState::Completed), false) => {
            drop(claimed);
            claim_directory(next, false)
        }
        (Some(_), false) => Ok(Claim::Unfinished { old: newest, new: next }),
    }
}

/// The newest of the runs `name`, `name-2`, `name-3` and so on, and the first free directory; the
/// same if there is no run.
fn newest_and_next(name: &str, runs_dir: &Path) -> (RunDirectory, RunDirectory) {
    let mut newest = None;
    let mut next = RunDirectory::new(runs_dir.join(name));
    for number in 2_u32.. {
        let is_run = next.is_run();
        if !is_run && !is_occupied(&next) {
            break;
        }
        let following = RunDirectory::new(runs_dir.join(format!("{name}-{number}")));
        let passed = std::mem::replace(&mut next, following);
        newest = if is_run { Some(passed) } else { newest };
    }
    (newest.unwrap_or_else(|| next.clone()), next)
}

/// Whether the folder is unrelated to runs, e.g. `books` with the texts of `books.toml`.
fn is_occupied(directory: &RunDirectory) -> bool {
    // A start that died early leaves one of these, or a partial file.
    if directory.is_run() || directory.lock().exists() || directory.checkpoints().exists() {
        return false;
    }
    let Ok(entries) = fs::read_dir(directory.path()) else { return false };
    let is_foreign = |path: &Path| {
        path.extension().is_none_or(|ending| ending != "tmp")
            && !path.file_name().is_some_and(is_hidden)
    };
    entries.flatten().any(|entry| is_foreign(&entry.path()))
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Locks `directory` and decides what may be done with it: resume if `resume`, else begin.
///
/// # Errors
/// As [`claim`], and when an engine is running there or the folder contains something other than a
/// run.
pub fn claim_directory(directory: RunDirectory, resume: bool) -> Result<Claim, HostError> {
    if is_occupied(&directory) {
        return Err(HostError::Occupied { path: directory.path().to_owned() });
    }
    let claimed = match ClaimedRun::lock(directory.clone()) {
        Err(_) if is_complete_for_good(&directory) => {
            return if resume {
                Ok(Claim::Completed(directory))
            } else {
                Err(HostError::Exists { directory, state: RunState::Completed })
            };
        }
        locked => locked?,
    };
    match (claimed.state()?, resume) {
        (Some(RunState::Completed), true) => Ok(Claim::Completed(claimed.directory.clone())),
        (None, _) | (Some(_), true) => Ok(Claim::Ready(claimed)),
        (Some(state), false) => {
            Err(HostError::Exists { directory: claimed.directory.clone(), state })
        }
    }
}

/// Locks the unfinished run in `directory` to resume it; creates nothing.
///
/// # Errors
/// As [`claim_directory`], and when there is no run.
pub fn claim_existing(directory: &RunDirectory) -> Result<Claim, HostError> {
    if !directory.is_run() {
        return Err(HostError::NoRun { path: directory.path().to_owned() });
    }
    claim_directory(directory.clone(), true)
}

impl Claim {
    /// The claimed directory, where the user has nothing more to choose.
    ///
    /// # Errors
    /// When there is something to choose after all: another process was faster.
    pub fn ready(self) -> Result<ClaimedRun, HostError> {
        match self {
            Self::Ready(claimed) => Ok(claimed),
            Self::Alive(directory) => Err(HostError::Alive { directory }),
            Self::Completed(directory) => {
                Err(HostError::Exists { directory, state: RunState::Completed })
            }
            Self::Unfinished { old: directory, .. } => {
                let state =
                    RunSummary::read(&directory).map_or(RunState::Unknown, |summary| summary.state);
                Err(HostError::Exists { directory, state })
            }
        }
    }
}

impl ClaimedRun {
    /// Creates `directory` if missing, and takes its lock.
    fn lock(directory: RunDirectory) -> Result<Self, HostError> {
        let io = |source| HostError::Io { path: directory.path().to_owned(), source };
        let mut made = Vec::new();
        for _ in 0..TRIES {
            if !directory.path().exists() && !is_alive(&directory) {
                made = missing_folders(directory.path());
            }
            create_directory(directory.path()).map_err(io)?;
            // The path is final only now: links can be followed only once it exists.
            let directory = RunDirectory::new(directory.path());
            match RunLock::acquire(&directory) {
                Ok(lock) => return Ok(Self { directory, lock, made }),
                Err(LockError::Alive { .. }) => return Err(HostError::Alive { directory }),
                // Another start has rejected its configuration and removes what it created.
                Err(LockError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(HostError::Alive { directory })
    }

    /// How the run in it ended; `None` if there is no run yet.
    fn state(&self) -> Result<Option<RunState>, HostError> {
        if !self.directory.is_run() {
            return Ok(None);
        }
        let io = |source| HostError::Io { path: self.directory.path().to_owned(), source };
        RunState::at_rest(&self.directory).map(Some).map_err(io)
    }

    /// Removes what was created for a run that does not begin; an existing run is not touched.
    pub(super) fn abandon(self) {
        if self.made.is_empty() || self.directory.is_run() {
            return;
        }
        let _ = fs::remove_dir_all(self.directory.path());
        for folder in self.made.iter().rev() {
            // A folder that others use by now is not empty, and is kept.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Whether the run in `directory`, which could not be locked, is completed and has no engine. Its
/// disk may be read-only; nothing is written to a completed run, so its state is known without the
/// lock.
fn is_complete_for_good(directory: &RunDirectory) -> bool {
    directory.is_run()
        && Liveness::of(directory) != Liveness::Alive
        && RunState::at_rest(directory).is_ok_and(|state| state == RunState::Completed)
}

/// The missing folders on the way to `path`, outermost first, including `path`.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> =
        path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}
