//! Which engine runs a run: it holds the lock while it is running, and `engine.json` describes it.
//!
//! The lock is authoritative: the kernel releases it when the process ends, for whatever reason. A
//! process id alone proves nothing, since it may belong to another process by now. The lock belongs
//! to an open file, not to a process, so it can be passed to a child: it is held until the last of
//! them closes the file.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::record::files::{append_regular, is_same, open_regular, read_small};
use crate::record::{FORMAT_VERSION, RunDirectory, replace_file};
use crate::text::format::shell_word;

/// A reader that calls [`is_alive`] holds the lock for microseconds; an engine that starts at that
/// moment tries again.
const TRIES: usize = 25;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The lock of a run, held from before its directory is inspected until its engine ends.
#[derive(Debug)]
pub struct RunLock {
    /// `None` only after the lock was passed on.
    file: Option<File>,
    /// The run directory, held open, so that another one of the same name is recognized.
    directory: Option<File>,
}

/// Whether an engine is running, according to the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// An engine holds the lock.
    Alive,
    /// No engine holds it.
    Gone,
    /// Unknown: the file system has no locks, or the lock file cannot be opened.
    Unknown,
}

/// State of the lock file and its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockFileState {
    /// Unchanged, as far as the system can tell.
    Held,
    /// The lock file was removed or replaced; the directory is still the same.
    Removed,
    /// The directory was deleted, moved or replaced.
    Gone,
}

/// The current or last engine of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Version of this file.
    pub format_version: u32,
    /// Process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot, if known.
    pub start_time: Option<u64>,
    /// Id of the boot of the machine, if known.
    pub boot_id: Option<String>,
    /// Name of the machine.
    pub host: String,
    /// Socket that it listens on; `None` if none could be opened and only signals reach it.
    pub socket: Option<PathBuf>,
    /// Version of the socket protocol.
    pub protocol: u32,
    /// Version of patchtui.
    pub version: String,
}

/// Why a run could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another engine is running.
    #[error("the run {name:?} is already running{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Alive {
        /// Name of the run.
        name: String,
        /// Process id of the other engine, if known.
        pid: Option<u32>,
    },
    /// The file system has no locks.
    #[error(
        "the file system of {path} does not support file locks (flock), which keep two engines \
         out of one run: {source}"
    )]
    NoLocks {
        /// The lock file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
}

impl LockError {
    /// Locking the lock file of `directory` failed for another reason than a second process.
    fn of_failure(directory: &RunDirectory, source: io::Error) -> Self {
        let path = directory.lock();
        let no_locks = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK, Errno::INVAL];
        if Errno::from_io_error(&source).is_some_and(|errno| no_locks.contains(&errno)) {
            Self::NoLocks { path, source }
        } else {
            Self::Io { path, source }
        }
    }
}

impl Advice for LockError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Alive { name, .. } => {
                format!("attach to it: patchtui attach {}", shell_word(name))
            }
            Self::NoLocks { .. } => "keep runs on a disk that supports locks: --runs-dir DIR \
                                     (NFS: mount it without nolock)"
                .into(),
            Self::Io { .. } => "check that the run directory is writable".into(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Alive { .. } => USAGE,
            Self::NoLocks { .. } | Self::Io { .. } => FAILED,
        }
    }
}

impl RunLock {
    /// Takes the lock of `directory`.
    ///
    /// # Errors
    /// When another process has it, or the lock file cannot be used.
    pub fn acquire(directory: &RunDirectory) -> Result<Self, LockError> {
        let io_error = |source| LockError::Io { path: directory.lock(), source };
        for _ in 0..TRIES {
            let file = append_regular(&directory.lock()).map_err(io_error)?;
            match file.try_lock() {
                Ok(()) => {
                    let lock =
                        Self { file: Some(file), directory: File::open(directory.path()).ok() };
                    // The directory may have been removed and recreated between opening and
                    // locking.
                    if lock.is_in_place(directory) {
                        return Ok(lock);
                    }
                }
                Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::Error(source)) => {
                    return Err(LockError::of_failure(directory, source));
                }
            }
        }
        let pid = EngineInfo::read(directory).map(|info| info.pid);
        Err(LockError::Alive { name: directory.name(), pid })
    }

    /// Takes over the lock that the parent process passed as standard input, if it did.
    ///
    /// # Errors
    /// When the lock file was passed but cannot be used.
    pub fn inherit(directory: &RunDirectory) -> Result<Option<Self>, LockError> {
        let io_error = |source: io::Error| LockError::Io { path: directory.lock(), source };
        let stdin = rustix::stdio::stdin().as_fd().try_clone_to_owned().map_err(io_error)?;
        let lock =
            Self { file: Some(File::from(stdin)), directory: File::open(directory.path()).ok() };
        if !lock.is_in_place(directory) {
            // A terminal, a pipe, another file: there is no lock to take over.
            drop(lock.into_file());
            return Ok(None);
        }
        match lock.file.as_ref().map_or(Ok(()), File::try_lock) {
            // It is already locked, so locking it again fails.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                drop(lock.into_file());
                return Err(LockError::Alive { name: directory.name(), pid: None });
            }
            Err(TryLockError::Error(source)) => {
                return Err(LockError::of_failure(directory, source));
            }
        }
        let null = File::open("/dev/null").map_err(io_error)?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| io_error(error.into()))?;
        Ok(Some(lock))
    }

    /// The locked file, to be passed to the process that continues the run; the lock is held until
    /// the last copy is closed.
    #[must_use = "dropping the file releases the lock"]
    pub fn into_file(mut self) -> Option<OwnedFd> {
        self.file.take().map(OwnedFd::from)
    }

    /// Checks whether the lock and its directory are still in place.
    #[must_use]
    pub fn place(&self, directory: &RunDirectory) -> LockFileState {
        match is_same(self.file.as_ref(), &directory.lock()) {
            Ok(true) => LockFileState::Held,
            // A network failure says nothing about the directory.
            Err(error) if !is_absent(&error) => LockFileState::Held,
            Ok(false) | Err(_) => match is_same(self.directory.as_ref(), directory.path()) {
                Ok(true) => LockFileState::Removed,
                Err(error) if !is_absent(&error) => LockFileState::Held,
                Ok(false) | Err(_) => LockFileState::Gone,
            },
        }
    }

    /// Recreates and locks the lock file after it was removed.
    ///
    /// # Errors
    /// When another engine was faster.
    pub fn retake(&mut self, directory: &RunDirectory) -> Result<(), LockError> {
        *self = Self::acquire(directory)?;
        Ok(())
    }

    /// Whether this is still the lock of `directory`: neither deleted nor replaced.
    fn is_in_place(&self, directory: &RunDirectory) -> bool {
        is_same(self.file.as_ref(), &directory.lock()).unwrap_or(false)
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether an engine is running in `directory` at this moment; false if unknown.
#[must_use]
pub fn is_alive(directory: &RunDirectory) -> bool {
    Liveness::of(directory) == Liveness::Alive
}

impl Liveness {
    /// The state of the lock of `directory` at this moment.
    #[must_use]
    pub fn of(directory: &RunDirectory) -> Self {
        let file = match open_regular(&directory.lock()) {
            Ok(file) => file,
            Err(error) if is_absent(&error) => return Self::Gone,
            Err(_) => return Self::Unknown,
        };
        let found = Self::of_attempt(&file.try_lock_shared());
        if found == Self::Gone {
            let _ = file.unlock();
        }
        found
    }

    /// The meaning of the result of a locking attempt.
    fn of_attempt(attempt: &Result<(), TryLockError>) -> Self {
        match attempt {
            Ok(()) => Self::Gone,
            Err(TryLockError::WouldBlock) => Self::Alive,
            Err(TryLockError::Error(_)) => Self::Unknown,
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing the file alone would leave the lock to a child process that was just forked and
        // has not yet started its program.
        if let Some(file) = &self.file {
            let _ = file.unlock();
        }
    }
}

impl EngineInfo {
    /// Describes this process, which listens on `socket`, if any, and speaks `protocol`.
    #[must_use]
    pub fn of_this_process(socket: impl Into<Option<PathBuf>>, protocol: u32) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            pid: std::process::id(),
            start_time: start_time(std::process::id()),
            boot_id: system_line("/proc/sys/kernel/random/boot_id"),
            host: system_line("/proc/sys/kernel/hostname").unwrap_or_default(),
            socket: socket.into(),
            protocol,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Writes `engine.json` in `directory`.
    pub fn write(&self, directory: &RunDirectory) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        replace_file(&directory.engine_json(), &text)
    }

    /// Reads `engine.json`, if it exists.
    #[must_use]
    pub fn read(directory: &RunDirectory) -> Option<Self> {
        serde_json::from_slice(&read_small(&directory.engine_json()).ok()?).ok()
    }

    /// Whether the described process was on this machine and has ended, even if another process has
    /// its id by now.
    #[must_use]
    pub fn is_of_ended_process(&self) -> bool {
        self.other_machine().is_none()
            && self.start_time.is_some()
            && start_time(self.pid) != self.start_time
    }

    /// The machine of the engine, if it differs from this one.
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

/// Field 22 of `/proc/PID/stat`; the name in field 2 may contain spaces and brackets, so counting
/// starts after the last bracket.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
        assert_eq!(refused.to_string(), "the run \"books\" is already running");
        assert_eq!(refused.hint(Audience::Command), "attach to it: patchtui attach books");
        drop(lock);
        assert!(!is_alive(&run));
        RunLock::acquire(&run).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_named_and_its_runs_are_not_taken_for_dead() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        for errno in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK] {
            assert_eq!(
                Liveness::of_attempt(&Err(TryLockError::Error(errno.into()))),
                Liveness::Unknown
            );
            let error = LockError::of_failure(&run, errno.into());
            assert!(
                error.to_string().contains("does not support file locks (flock)")
                    && error.hint(Audience::Command).contains("--runs-dir"),
                "{error}"
            );
        }
        assert!(matches!(LockError::of_failure(&run, Errno::IO.into()), LockError::Io { .. }));
        // A lock file that cannot be opened gives no information either.
        std::os::unix::fs::symlink("lock", run.lock()).unwrap();
        assert_eq!((Liveness::of(&run), is_alive(&run)), (Liveness::Unknown, false));
    }

    #[test]
    fn a_lock_that_is_handed_on_has_no_moment_without_an_owner() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        let file = RunLock::acquire(&run).unwrap().into_file().unwrap();
        assert!(is_alive(&run));
        // A copy, as in a child process.
        let copy = file.try_clone().unwrap();
        drop(file);
        assert!(is_alive(&run));
        RunLock::acquire(&run).unwrap_err();
        drop(copy);
        assert!(!is_alive(&run));
    }

    #[test]
    fn a_lock_of_a_directory_that_was_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        let lock = RunLock::acquire(&run).unwrap();
        assert_eq!(lock.place(&run), LockFileState::Held);
        fs::remove_dir_all(run.path()).unwrap();
        assert_eq!(lock.place(&run), LockFileState::Gone);
        let again = RunDirectory::create(folder.path().join("books")).unwrap();
        let other = RunLock::acquire(&again).unwrap();
        assert_eq!(
            (other.place(&run), lock.place(&run)),
            (LockFileState::Held, LockFileState::Gone)
        );
    }

    #[test]
    fn a_lock_file_that_was_removed_is_made_again_unless_another_engine_was_faster() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path().join("books")).unwrap();
        let mut lock = RunLock::acquire(&run).unwrap();
        fs::remove_file(run.lock()).unwrap();
        assert_eq!(lock.place(&run), LockFileState::Removed);
        assert!(!is_alive(&run));
        lock.retake(&run).unwrap();
        assert_eq!(lock.place(&run), LockFileState::Held);
        assert!(is_alive(&run));
        fs::remove_file(run.lock()).unwrap();
        let _faster = RunLock::acquire(&run).unwrap();
        assert!(matches!(lock.retake(&run), Err(LockError::Alive { .. })));
    }

    #[test]
    fn engine_json_says_who_and_where() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::new(folder.path());
        assert_eq!(EngineInfo::read(&run), None);
        let info = EngineInfo::of_this_process(PathBuf::from("/tmp/x.sock"), 1);
        info.write(&run).unwrap();
        let read = EngineInfo::read(&run).unwrap();
        assert_eq!(read, info);
        assert_eq!(read.pid, std::process::id());
        assert_eq!(read.other_machine(), None);
        let elsewhere =
            EngineInfo { boot_id: Some("another".into()), host: "node7".into(), ..info };
        assert_eq!(elsewhere.other_machine(), Some("node7"));
    }
}
