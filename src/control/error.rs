//! What can go wrong between a client and an engine.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::control::{FrameError, HelloError};
use crate::run::RunCommand;

/// What went wrong between a client and an engine.
#[derive(Debug, Error)]
pub enum ControlError {
    /// No engine is alive.
    #[error("the run {name:?} is not alive")]
    NotAlive {
        /// Name of the run.
        name: String,
    },
    /// The engine is alive on a machine that this one has no socket to.
    #[error("the run {name:?} is alive on another machine ({host})")]
    OtherMachine {
        /// Name of the run.
        name: String,
        /// The other machine.
        host: String,
    },
    /// An engine holds the lock and has not said yet where it listens.
    #[error("the engine of the run {name:?} does not listen yet")]
    NotListening {
        /// Name of the run.
        name: String,
    },
    /// The socket does not answer.
    #[error("cannot connect to {socket}: {source}")]
    Connect {
        /// The engine's socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else than an engine of this user listens there.
    #[error("{socket} belongs to user {uid}")]
    ForeignPeer {
        /// The socket.
        socket: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The two do not speak the same language.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// The engine closed the door, with a reason.
    #[error("the engine refused: {message}")]
    Refused {
        /// The reason.
        message: String,
    },
    /// What came over the socket makes no sense, or nothing came.
    #[error("lost the engine: {0}")]
    Frame(#[from] FrameError),
    /// The engine closed the connection.
    #[error("the engine closed the connection")]
    Closed,
    /// Nothing was heard for too long, not even a heartbeat.
    #[error("the engine has been silent for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// The command was heard, or at least sent, and not carried out in time.
    #[error("no answer to {command} within {:.0} s{}", .limit.as_secs_f64(), if *.accepted { "; the engine has heard it" } else { "" })]
    NoAnswer {
        /// The command.
        command: RunCommand,
        /// How long was waited.
        limit: Duration,
        /// Whether the engine said that it heard it.
        accepted: bool,
    },
    /// The command could not be carried out.
    #[error("{command} failed: {message}")]
    CommandFailed {
        /// The command.
        command: RunCommand,
        /// Why.
        message: String,
    },
    /// The run ended before it could carry out the command.
    #[error("the run ended before {command} was done")]
    EndedFirst {
        /// The command.
        command: RunCommand,
    },
    /// The folder of sockets is not safe to use.
    #[error("cannot use the socket folder {path}: {problem}")]
    SocketFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A socket's path does not fit into the system's address.
    #[error("the socket path {path} is longer than {limit} bytes")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Longest path.
        limit: usize,
    },
    /// The engine's door cannot be opened.
    #[error("cannot listen at {path}: {source}")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system gave no thread, no runtime or no signals.
    #[error("cannot start the control server: {0}")]
    Start(io::Error),
    /// The files of the run cannot be read.
    #[error("cannot read the files of the run {name:?}: {source}")]
    Files {
        /// Name of the run.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl ControlError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotAlive { name } => format!("look at it with: patchtui view {name}; go on with: patchtui run CONFIG --name {name} --resume"),
            Self::OtherMachine { name, host } => format!("ssh -t {host} patchtui attach {name}"),
            Self::NotListening { .. } | Self::Closed | Self::Silent(_) => "try again in a moment".into(),
            Self::Connect { .. } => "make the engine open its socket again with: kill -USR2 PID (PID is in the run's engine.json)".into(),
            Self::Hello(_) | Self::Refused { .. } => "use the same version of patchtui as the engine: see version in the run's engine.json".into(),
            Self::Frame(_) => "attach again; if this repeats, look at the run's engine.log".into(),
            Self::NoAnswer { .. } => "a step may take long; see what the run does with: patchtui ctl RUN status".into(),
            Self::CommandFailed { .. } => "see the run's log with: patchtui attach RUN".into(),
            Self::EndedFirst { .. } => "see how it ended with: patchtui runs".into(),
            Self::ForeignPeer { .. } | Self::SocketFolder { .. } | Self::PathTooLong { .. } | Self::Listen { .. } => {
                "choose another folder: export PATCHTUI_SOCKET_DIR=/run/user/$UID/patchtui".into()
            }
            Self::Start(_) => "check the limits of the process with: ulimit -a".into(),
            Self::Files { .. } => "check that the run directory is readable".into(),
        }
    }
}
