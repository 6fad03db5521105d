//! Every error about a run's files, its start and its process, built and printed with its hint.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use patchtui::advice::Failure;
use patchtui::advice::{Advice, Audience};
use patchtui::config::{ConfigError, IdentityChange};
use patchtui::control::ControlError;
use patchtui::host::{HostError, LaunchError, StartError};
use patchtui::record::{
    CheckpointError, LineError, LockError, LogError, RunDirectory, RunState, StoreError,
};

/// The name of each variant; a new one does not compile until it has a row.
trait Named: ToString {
    fn variant(&self) -> &'static str;
    fn hint_text(&self) -> String;
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

fn run() -> RunDirectory {
    RunDirectory::new("/runs/my books")
}

fn path() -> PathBuf {
    "/runs/my books/file".into()
}

impl Named for HostError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Alive { .. } => "HostError::Alive",
            Self::Exists { .. } => "HostError::Exists",
            Self::Occupied { .. } => "HostError::Occupied",
            Self::NoRun { .. } => "HostError::NoRun",
            Self::OtherRun { .. } => "HostError::OtherRun",
            Self::Config(_) => "HostError::Config",
            Self::Lock(_) => "HostError::Lock",
            Self::Io { .. } => "HostError::Io",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Command)
    }
}

impl Named for LaunchError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Spawn { .. } => "LaunchError::Spawn",
            Self::Log { .. } => "LaunchError::Log",
            Self::Died { .. } => "LaunchError::Died",
            Self::Mute { .. } => "LaunchError::Mute",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Command)
    }
}

impl Named for StartError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Lock(_) => "StartError::Lock",
            Self::Store(_) => "StartError::Store",
            Self::Control(_) => "StartError::Control",
            Self::EngineInfo(_) => "StartError::EngineInfo",
            Self::Thread(_) => "StartError::Thread",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Command)
    }
}

impl Named for LockError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Alive { .. } => "LockError::Alive",
            Self::NoLocks { .. } => "LockError::NoLocks",
            Self::Io { .. } => "LockError::Io",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Command)
    }
}

impl Named for StoreError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Read { .. } => "StoreError::Read",
            Self::Log(_) => "StoreError::Log",
            Self::Thread(_) => "StoreError::Thread",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Command)
    }
}

impl Named for CheckpointError {
    fn variant(&self) -> &'static str {
        match self {
            Self::Io { .. } => "CheckpointError::Io",
            Self::NoRoom { .. } => "CheckpointError::NoRoom",
            Self::Gone { .. } => "CheckpointError::Gone",
            Self::Lines(_) => "CheckpointError::Lines",
            Self::Tensors(_) => "CheckpointError::Tensors",
            Self::Damaged { .. } => "CheckpointError::Damaged",
            Self::Interrupted => "CheckpointError::Interrupted",
        }
    }
    fn hint_text(&self) -> String {
        self.hint(Audience::Run("RUN"))
    }
}

impl Named for LineError {
    fn variant(&self) -> &'static str {
        match self {
            Self::NotARecord(_) => "LineError::NotARecord",
            Self::Newer { .. } => "LineError::Newer",
            Self::Beyond { .. } => "LineError::Beyond",
        }
    }
    fn hint_text(&self) -> String {
        String::new()
    }
}

fn host_errors() -> Vec<HostError> {
    let change = IdentityChange { key: "seed".into(), old: "1".into(), new: "2".into() };
    vec![
        HostError::Alive { directory: run() },
        HostError::Exists { directory: run(), state: RunState::Completed },
        HostError::Exists { directory: run(), state: RunState::Crashed },
        HostError::NoRun { path: path() },
        HostError::Occupied { path: path() },
        HostError::OtherRun { directory: run(), first: change.clone(), more: 0 },
        HostError::OtherRun { directory: run(), first: change, more: 2 },
        HostError::Config(ConfigError::Unreadable { path: path(), error: denied() }),
        HostError::Lock(LockError::Io { path: path(), source: denied() }),
        HostError::Io { path: path(), source: denied() },
    ]
}

fn rows<E: Named>(errors: &[E]) -> String {
    errors
        .iter()
        .map(|error| {
            format!("{}\n  {}\n  hint: {}\n", error.variant(), error.to_string(), error.hint_text())
        })
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn every_error_of_a_run_says_what_is_wrong_and_what_to_type() {
    let log = || LogError { path: path(), source: denied() };
    let launch = [
        LaunchError::Spawn { program: "patchtui".into(), source: denied() },
        LaunchError::Log { path: path(), source: denied() },
        LaunchError::Died {
            status: ExitStatus::from_raw(9),
            tail: vec!["error: no luck".into()],
            log: path(),
        },
        LaunchError::Mute { pid: 7, log: path() },
    ];
    let lock = || LockError::Alive { name: "my books".into(), pid: Some(7) };
    let start = [
        StartError::Lock(lock()),
        StartError::Store(StoreError::Log(log())),
        StartError::Control(ControlError::Start(denied())),
        StartError::EngineInfo(denied()),
        StartError::Thread(denied()),
    ];
    let store = [
        StoreError::Read { name: "my books".into(), source: denied() },
        StoreError::Log(log()),
        StoreError::Thread(denied()),
    ];
    let checkpoint = [
        CheckpointError::Io { path: path(), source: denied() },
        CheckpointError::NoRoom { path: path(), needed: 9, free: 4 },
        CheckpointError::Gone { path: path() },
        CheckpointError::Lines(denied()),
        CheckpointError::Tensors("out of memory".into()),
        CheckpointError::Damaged { path: path(), problem: "it has 3 bytes instead of 4".into() },
        CheckpointError::Interrupted,
    ];
    let line = [
        LineError::NotARecord(serde_json::from_str::<u32>("{").unwrap_err()),
        LineError::Newer { found: 9 },
        LineError::Beyond { seq: u64::MAX, attempt: 1 },
    ];
    let no_locks = LockError::NoLocks { path: path(), source: io::Error::from_raw_os_error(95) };
    let locks = [
        lock(),
        LockError::Alive { name: "books".into(), pid: None },
        no_locks,
        LockError::Io { path: path(), source: denied() },
    ];
    let all = [
        rows(&host_errors()),
        rows(&launch),
        rows(&start),
        rows(&locks),
        rows(&store),
        rows(&checkpoint),
        rows(&line),
    ]
    .concat();
    insta::assert_snapshot!(all);
}

#[test]
fn what_the_user_asked_for_wrongly_exits_2_and_what_broke_exits_1() {
    let codes: Vec<u8> =
        host_errors().into_iter().map(|error| Failure::from(error).exit_code).collect();
    assert_eq!(codes, [2, 2, 2, 2, 2, 2, 2, 2, 1, 1]);
    let died = |code: i32| LaunchError::Died {
        status: ExitStatus::from_raw(code << 8),
        tail: Vec::new(),
        log: path(),
    };
    assert_eq!([died(2), died(1)].map(|error| Failure::from(error).exit_code), [2, 1]);
    let start = [
        StartError::Lock(LockError::Alive { name: "books".into(), pid: None }),
        StartError::Thread(denied()),
    ];
    assert_eq!(start.map(|error| Failure::from(error).exit_code), [2, 1]);
}
