//! Errors between a client and an engine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::advice::{Advice, Audience};
use crate::control::{FrameError, HelloError};
use crate::record::RunCommand;

/// An error between a client and an engine.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No engine is running.
    #[error("the run {name:?} is not running")]
    NotAlive {
        /// Name of the run.
        name: String,
    },
    /// The engine is running on another machine, and this machine has no socket to it.
    #[error("the run {name:?} is running on another machine ({host})")]
    OtherMachine {
        /// Name of the run.
        name: String,
        /// Host name of the other machine.
        host: String,
    },
    /// An engine holds the lock but has not published its socket yet.
    #[error("the engine of the run {name:?} is starting and does not answer yet")]
    NotListening {
        /// Name of the run.
        name: String,
    },
    /// The engine could not open a socket.
    #[error("the run {name:?} (pid {pid}) has no socket and accepts signals only")]
    SignalsOnly {
        /// Name of the run.
        name: String,
        /// Process id of its engine.
        pid: u32,
    },
    /// The engine's process exists but does not answer.
    #[error("the engine of the run {name:?} (pid {pid}) does not answer: no reply within {:.1} s", .waited.as_secs_f64())]
    Unresponsive {
        /// Name of the run.
        name: String,
        /// Process id of its engine.
        pid: u32,
        /// How long the client waited.
        waited: Duration,
    },
    /// Nothing listens on the socket.
    #[error("cannot connect to the run {name:?} at {socket}: {source}")]
    Connect {
        /// Name of the run.
        name: String,
        /// Path of the engine's socket.
        socket: PathBuf,
        /// Process id of the engine.
        pid: u32,
        /// Operating system error.
        source: io::Error,
    },
    /// The process that listens on the socket belongs to another user.
    #[error("the process that listens on {socket} belongs to user {uid}")]
    ForeignPeer {
        /// Path of the socket.
        socket: PathBuf,
        /// User id of its owner.
        uid: u32,
    },
    /// The protocols are incompatible.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The engine closed the connection with a reason.
    #[error("the engine refused the connection: {message}")]
    Refused {
        /// Reason given by the engine.
        message: String,
    },
    /// An invalid message was received, or the connection broke.
    #[error("lost the connection to the engine: {0}")]
    Frame(#[from] FrameError),
    /// The engine closed the connection.
    #[error("the engine closed the connection")]
    Closed,
    /// Nothing was received for too long, not even a heartbeat.
    #[error("the engine sent nothing for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The command was accepted, or at least sent, but not completed in time.
    #[error("{command} was not completed within {:.0} s{}", .limit.as_secs_f64(), if *.accepted { ", although the engine accepted it" } else { "" })]
    NoAnswer {
        /// Name of the run.
        name: String,
        /// Command that was sent.
        command: RunCommand,
        /// How long the client waited.
        limit: Duration,
        /// Whether the engine accepted it.
        accepted: bool,
    },
    /// The command failed.
    #[error("{command} failed: {message}")]
    CommandFailed {
        /// Name of the run.
        name: String,
        /// Command that was sent.
        command: RunCommand,
        /// Reason given by the engine.
        message: String,
    },
    /// The run ended before the command was completed.
    #[error("the run ended before {command} was completed{}", .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    EndedFirst {
        /// Name of the run.
        name: String,
        /// Command that was sent.
        command: RunCommand,
        /// How it ended, if known.
        reason: Option<String>,
    },
    /// Neither the lock nor the socket tells whether an engine is running.
    #[error(
        "cannot tell whether the run {name:?} is running: its file system has no file locks, and \
         no engine answers"
    )]
    NoLocks {
        /// Name of the run.
        name: String,
    },
    /// The folder for sockets is not safe to use.
    #[error("cannot use the socket folder {path}: {problem}")]
    SocketFolder {
        /// Path of the folder.
        path: PathBuf,
        /// Why it cannot be used.
        problem: String,
    },
    /// The socket's path does not fit into a socket address.
    #[error("the socket path {path} is longer than {limit} bytes")]
    PathTooLong {
        /// Path of the socket.
        path: PathBuf,
        /// Maximum length, in bytes.
        limit: usize,
    },
    /// The socket cannot be opened.
    #[error("cannot listen on {path}: {source}")]
    Listen {
        /// Path of the socket.
        path: PathBuf,
        /// Operating system error.
        source: io::Error,
    },
    /// No socket can be opened, neither in the folder for sockets nor in the run directory.
    #[error("no socket can be opened: {first}; {second}")]
    NoSocket {
        /// Error for the folder for sockets.
        first: Box<ControlError>,
        /// Error for the run directory.
        second: Box<ControlError>,
    },
    /// The thread, the runtime or the signal handlers of the server could not be created.
    #[error("cannot start the control server: {0}")]
    Start(io::Error),
    /// The client's runtime could not be started.
    #[error("cannot start the client: {0}")]
    Client(io::Error),
    /// The files of the run cannot be read.
    #[error("cannot read the files of the run {name:?}: {source}")]
    Files {
        /// Name of the run.
        name: String,
        /// Operating system error.
        source: io::Error,
    },
}

impl Advice for ControlError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::NotAlive { name } => format!(
                "view it with: patchtui view {name}; if it is unfinished, resume it with: \
                 patchtui resume {name}"
            ),
            Self::NoLocks { name } => format!("view its files with: patchtui view {name}"),
            Self::OtherMachine { name, host } => {
                format!("attach on that machine: ssh -t {host} patchtui attach {name}")
            }
            Self::NotListening { .. } | Self::Closed | Self::Silent(_) => {
                "try again in a moment".into()
            }
            Self::SignalsOnly { pid, .. } => format!(
                "stop it with a checkpoint: kill -TERM {pid}; save a checkpoint: kill -USR1 {pid}"
            ),
            Self::Unresponsive { pid, .. } => format!(
                "inspect the process: ps -o pid,stat,etime,args -p {pid}; if STAT is T it was \
                 stopped: kill -CONT {pid}"
            ),
            Self::Connect { pid, .. } => {
                format!("make the engine open its socket again: kill -USR2 {pid}")
            }
            Self::Hello(_) | Self::Refused { .. } => "use the engine's version of patchtui: see \
                                                      \"version\" in the run's engine.json"
                .into(),
            Self::Frame(_) => {
                "try again; if this repeats, read engine.log in the run directory".into()
            }
            Self::NoAnswer { name, .. } => {
                format!("a step may take a while; check the run: patchtui ctl {name} status")
            }
            Self::EndedFirst { name, .. }
            | Self::CommandFailed { name, command: RunCommand::Stop | RunCommand::Kill, .. } => {
                format!("see how the run ended: patchtui view {name}")
            }
            Self::CommandFailed { name, .. } => {
                format!("read the run's log: patchtui attach {name}")
            }
            Self::NoSocket { .. } => "run it with --no-tui, so that it accepts signals only; or \
                                      choose another folder: export \
                                      PATCHTUI_SOCKET_DIR=\"$HOME/.patchtui\""
                .into(),
            Self::ForeignPeer { .. }
            | Self::SocketFolder { .. }
            | Self::PathTooLong { .. }
            | Self::Listen { .. } => "choose another folder for sockets: export \
                                      PATCHTUI_SOCKET_DIR=\"$HOME/.patchtui\""
                .into(),
            Self::Start(_) | Self::Client(_) => "check the limits of the process: ulimit -a".into(),
            Self::Files { .. } => "check that the run directory is readable".into(),
        }
    }
}
