//! Who runs a run: the lock that says that an engine is alive, and the card that says which one.
//!
//! The lock is the truth: the kernel drops it when the process ends, however it ends. A process id alone never is, for it
//! may belong to somebody else by now.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::run::{FORMAT_VERSION, RunDirectory, replace_file};

/// A reader that asks [`is_alive`] holds the lock for microseconds; an engine that starts just then tries again.
const TRIES: usize = 25;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// Held by the engine from before it touches the run until it ends.
#[derive(Debug)]
pub struct RunLock {
    file: File,
}

/// Who runs a run, or ran it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Version of this file.
    pub format_version: u32,
    /// Process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot, where the system tells.
    pub start_time: Option<u64>,
    /// Which boot of which machine, where the system tells.
    pub boot_id: Option<String>,
    /// Name of the machine.
    pub host: String,
    /// Where it listens; `None` if no socket could be opened, and it hears signals only.
    pub socket: Option<PathBuf>,
    /// Version of what is spoken there.
    pub protocol: u32,
    /// Version of the program.
    pub version: String,
}

/// Why a run could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another engine is alive.
    #[error("the run {name:?} is alive{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Alive {
        /// Name of the run.
        name: String,
        /// Process of the other engine, if it has said so yet.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LockError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Alive { name, .. } => format!("watch it with: patchtui attach {name}"),
            Self::Io { .. } => "check that the run directory is writable and that its file system supports locks".into(),
        }
    }
}

impl RunLock {
    /// Takes the lock of `directory`.
    pub fn acquire(directory: &RunDirectory) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { path: directory.lock(), source };
        let file = File::options().create(true).append(true).open(directory.lock()).map_err(io_error)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::Error(source)) => return Err(io_error(source)),
            }
        }
        let pid = EngineInfo::read(directory).map(|info| info.pid);
        Err(LockError::Alive { name: directory.name(), pid })
    }
}

/// Whether an engine runs `directory` at this moment.
#[must_use]
pub fn is_alive(directory: &RunDirectory) -> bool {
    let Ok(file) = File::open(directory.lock()) else { return false };
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(_)) => false,
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing the file alone would leave the lock to a child process that was forked just now and has not yet begun its program.
        let _ = self.file.unlock();
    }
}

impl EngineInfo {
    /// This process, listening at `socket`, if it has one, and speaking `protocol`.
    #[must_use]
    pub fn of_this_process(socket: impl Into<Option<PathBuf>>, protocol: u32) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            pid: std::process::id(),
            start_time: start_time(),
            boot_id: system_line("/proc/sys/kernel/random/boot_id"),
            host: system_line("/proc/sys/kernel/hostname").unwrap_or_default(),
            socket: socket.into(),
            protocol,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Leaves the card in `directory`.
    pub fn write(&self, directory: &RunDirectory) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        replace_file(&directory.engine_json(), &text)
    }

    /// Reads the card, if there is one.
    #[must_use]
    pub fn read(directory: &RunDirectory) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.engine_json()).ok()?).ok()
    }

    /// The machine of the engine, if it is another one than this.
    #[must_use]
    pub fn other_machine(&self) -> Option<&str> {
        let here = system_line("/proc/sys/kernel/random/boot_id");
        let differs = matches!((&self.boot_id, here), (Some(there), Some(here)) if *there != here);
        differs.then_some(self.host.as_str())
    }
}

fn system_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Field 22 of `/proc/self/stat`; the name in field 2 may hold spaces and brackets, so counting starts after the last bracket.
fn start_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_alive_exactly_as_long_as_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        assert!(!is_alive(&run));
        let lock = RunLock::acquire(&run).unwrap();
        assert!(is_alive(&run));
        let refused = RunLock::acquire(&run).unwrap_err();
        assert_eq!(refused.to_string(), "the run \"books\" is alive");
        assert_eq!(refused.hint(), "watch it with: patchtui attach books");
        drop(lock);
        assert!(!is_alive(&run));
        RunLock::acquire(&run).unwrap();
    }

    #[test]
    fn the_card_says_who_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        assert_eq!(EngineInfo::read(&run), None);
        let info = EngineInfo::of_this_process(PathBuf::from("/tmp/x.sock"), 1);
        info.write(&run).unwrap();
        let read = EngineInfo::read(&run).unwrap();
        assert_eq!(read, info);
        assert_eq!(read.pid, std::process::id());
        assert_eq!(read.other_machine(), None);
        let elsewhere = EngineInfo { boot_id: Some("another".into()), host: "node7".into(), ..info };
        assert_eq!(elsewhere.other_machine(), Some("node7"));
    }
}
