//! Starts an engine in its own process, which outlives this one, and waits until it answers.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, Failure, USAGE};
use crate::config::RunConfig;
use crate::control::greet;
use crate::host::ClaimedRun;
use crate::host::prepare::Check;
use crate::record::files::append_regular;
use crate::record::{History, RunDirectory, RunIndex, RunLock};
use crate::text::sanitize_line;

/// The socket is opened before any long task, so an engine that takes longer than this is stuck.
const LIMIT: Duration = Duration::from_mins(1);
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// Bytes read from the end of the log, and number of lines shown.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;

/// Why no engine answers.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The process could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// Path of the program.
        program: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// Its log cannot be written.
    #[error("cannot write {path}: {source}")]
    Log {
        /// Path of the log.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the engine exited before it answered ({status}){}", tail_text(.tail))]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        tail: Vec<String>,
        /// Path of the log.
        log: PathBuf,
    },
    /// It does not answer.
    #[error("the engine (pid {pid}) does not answer")]
    Mute {
        /// Its process, which is still running.
        pid: u32,
        /// Path of its log.
        log: PathBuf,
    },
}

impl Advice for LaunchError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Spawn { .. } => "try the run without a screen, with --no-tui".into(),
            Self::Log { .. } => {
                "check that the run directory is writable and that its disk has space".into()
            }
            Self::Died { log, .. } | Self::Mute { log, .. } => {
                format!("read its log: less {}", log.display())
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            // The engine refused the request.
            Self::Died { status, .. } if status.code() == Some(USAGE.into()) => USAGE,
            _ => FAILED,
        }
    }
}

/// A run whose engine answers.
#[derive(Debug)]
pub struct Launched {
    /// Directory of the run.
    pub directory: RunDirectory,
    /// What the user should know about its start.
    pub warnings: Vec<String>,
}

/// Prepares a claimed directory for `config`, after `check` has accepted it, and starts an engine
/// for it in a separate process; returns when the engine answers.
///
/// # Errors
/// When `check` fails, or the engine does not start.
pub fn launch(claimed: ClaimedRun, config: RunConfig, check: Check) -> Result<Launched, Failure> {
    let (directory, lock, warnings) = claimed.prepare(config, &RunIndex::of_user(), check)?;
    spawn_engine(&directory, lock, &warnings)?;
    Ok(Launched { directory, warnings })
}

/// Starts `patchtui engine --run-dir DIRECTORY`, passes it the run's lock and the `warnings` of its
/// start for its log, and waits until it answers.
///
/// # Errors
/// When it cannot be started, ends before it answers, or does not answer; the lock is then
/// released.
pub fn spawn_engine(
    directory: &RunDirectory,
    lock: RunLock,
    warnings: &[String],
) -> Result<Child, LaunchError> {
    let program = std::env::current_exe()
        .map_err(|source| LaunchError::Spawn { program: "patchtui".into(), source })?;
    let mut command = Command::new(program);
    command.arg("engine").arg("--run-dir").arg(directory.path());
    command.args(warnings.iter().map(|warning| format!("--warning={warning}")));
    spawn(command, directory, lock)
}

/// Starts `command` as the engine of `directory`, detached from the terminal, and waits until it
/// answers.
///
/// The engine first creates its own session; until then it is in the terminal's process group, but
/// uses neither its input nor its output. Its standard input is the locked file, so that the lock
/// is passed on without a gap.
///
/// # Errors
/// As [`spawn_engine`].
pub fn spawn(
    mut command: Command,
    directory: &RunDirectory,
    lock: RunLock,
) -> Result<Child, LaunchError> {
    let path = directory.engine_log();
    let log_error = |source| LaunchError::Log { path: path.clone(), source };
    let log = append_regular(&path).map_err(log_error)?;
    let begin = log.metadata().map_err(log_error)?.len();
    let said = History::read(directory).map_or(0, |(history, _)| history.last_seq);
    let stdin = lock.into_file().map_or_else(Stdio::null, Stdio::from);
    command.stdin(stdin).stdout(log.try_clone().map_err(log_error)?).stderr(log);
    let mut child = command
        .spawn()
        .map_err(|source| LaunchError::Spawn { program: command.get_program().into(), source })?;
    // The command holds this process's copy of the locked file.
    drop(command);
    let limit = Instant::now() + LIMIT;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            // An engine that failed at once but reported why is shown on the screen.
            if History::read(directory)
                .is_ok_and(|(history, _)| history.last_seq > said && history.end.is_some())
            {
                return Ok(child);
            }
            return Err(LaunchError::Died { status, tail: tail(&path, begin), log: path });
        }
        if greet(directory, "launcher").is_ok() {
            return Ok(child);
        }
        if Instant::now() > limit {
            return Err(LaunchError::Mute { pid: child.id(), log: path });
        }
        thread::sleep(BETWEEN_TRIES);
    }
}

/// The last lines after byte `begin` of the log, sanitized.
fn tail(path: &PathBuf, begin: u64) -> Vec<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(length.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(sanitize_line).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
}

fn tail_text(tail: &[String]) -> String {
    tail.iter().flat_map(|line| ["\n  ", line.as_str()]).collect()
}
