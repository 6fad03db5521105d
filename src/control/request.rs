//! One request, one answer: the client of scripts and `ctl`. Blocking; not for use inside an async
//! runtime.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::control::client::{Connection, GREETING, new_command_id};
use crate::control::files::{read_history, wait_until_gone};
use crate::control::{ClientMessage, ControlError, FrameError, ServerMessage};
use crate::record::{
    CommandNote, ControlState, EngineInfo, History, Outcome, RunCommand, RunDirectory, RunEnd,
    RunEvent, is_alive,
};

/// Without a heartbeat for this long, the engine counts as lost.
const SILENCE: Duration = Duration::from_secs(5);
/// Time limit for the engine's greeting to a status request, before its files are read instead.
const STATUS_GREETING: Duration = Duration::from_millis(1400);
/// Time limit for the whole status request.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// How often a command is sent again after a broken connection; the engine recognizes it by its id.
const RETRIES: u32 = 3;
/// Time limit for an engine between taking its lock and opening its socket; a tenth of a second is
/// usual.
const STARTING: Duration = Duration::from_secs(30);
/// Time between attempts to reach an engine that is starting.
const BETWEEN_TRIES: Duration = Duration::from_millis(20);
/// Time before a command is sent again.
const BEFORE_RETRY: Duration = Duration::from_millis(100);

/// A command to a run.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Command that was sent.
    pub command: RunCommand,
    /// Name of the sender.
    pub sender: &'a str,
    /// Time limit.
    pub limit: Duration,
}

/// The state of a run.
#[derive(Debug)]
pub struct Status {
    /// Everything reported so far.
    pub history: History,
    /// Why a running engine did not report this itself, if the history was read from files
    /// instead.
    pub problem: Option<ControlError>,
}

/// A command without an answer yet.
struct Pending<'a> {
    directory: &'a RunDirectory,
    command: RunCommand,
    id: String,
    /// Whether there was a connection to send it over.
    was_sent: bool,
    /// Whether the engine accepted it.
    accepted: bool,
    /// Whether training had begun, so that a stop has something to save.
    has_begun: bool,
}

/// Sends a command to the run in `directory` and waits until it is completed: a stop or checkpoint
/// until the checkpoint is valid, a stop or kill until the engine's process has ended.
///
/// Returns the answer of the engine. Blocks; must not be called inside an async runtime.
///
/// # Errors
/// When no engine is running, the command fails, or there is no answer in time; the engine may then
/// still execute it.
pub fn request(
    directory: &RunDirectory,
    request: Request<'_>,
) -> Result<CommandNote, ControlError> {
    ask(directory, request, false)
}

/// Sends a command to the run in `directory` and waits only until the engine has accepted it.
///
/// Blocks; must not be called inside an async runtime.
///
/// # Errors
/// When no engine is running or does not answer in time; the engine may then still execute it.
pub fn request_without_waiting(
    directory: &RunDirectory,
    request: Request<'_>,
) -> Result<CommandNote, ControlError> {
    ask(directory, request, true)
}

/// The state of the run in `directory`: from its engine if it is running and answers, else from its
/// files.
///
/// Blocks; must not be called inside an async runtime.
pub fn status(directory: &RunDirectory, sender: &str) -> Result<Status, ControlError> {
    block_on(async {
        let problem = match timeout(STATUS_LIMIT, snapshot(directory, sender)).await {
            Ok(Ok(history)) => return Ok(Status { history, problem: None }),
            Ok(Err(error)) => error,
            Err(_) => ControlError::Silent(STATUS_LIMIT),
        };
        // It may have just ended; the files always have an answer.
        let history = read_history(directory).await?;
        Ok(Status { history, problem: is_alive(directory).then_some(problem) })
    })
}

/// Whether the engine of `directory` answers.
///
/// Blocks; must not be called inside an async runtime.
pub fn greet(directory: &RunDirectory, sender: &str) -> Result<(), ControlError> {
    block_on(async { Connection::open(directory, sender, GREETING).await.map(drop) })
}

fn block_on<T>(future: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::Client)?
        .block_on(future)
}

async fn snapshot(directory: &RunDirectory, sender: &str) -> Result<History, ControlError> {
    let mut connection = open_once_it_listens(directory, sender, STATUS_GREETING).await?;
    connection.send(&ClientMessage::Status).await?;
    loop {
        if let ServerMessage::Snapshot(history) = connection.receive(STATUS_LIMIT).await? {
            return Ok(*history);
        }
    }
}

/// Connects like [`Connection::open`], and waits for an engine that holds the lock but does not
/// listen yet.
async fn open_once_it_listens(
    directory: &RunDirectory,
    sender: &str,
    patience: Duration,
) -> Result<Connection, ControlError> {
    let limit = Instant::now() + STARTING;
    loop {
        match Connection::open(directory, sender, patience).await {
            Err(error) if Instant::now() < limit && is_starting(directory, &error) => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            opened => return opened,
        }
    }
}

/// Whether the engine of `directory` is starting: `engine.json` is missing or from the previous
/// engine.
fn is_starting(directory: &RunDirectory, error: &ControlError) -> bool {
    match error {
        ControlError::NotListening { .. } => true,
        ControlError::Connect { .. } | ControlError::SignalsOnly { .. } => {
            is_alive(directory)
                && EngineInfo::read(directory).is_none_or(|info| info.is_of_ended_process())
        }
        _ => false,
    }
}

fn ask(
    directory: &RunDirectory,
    request: Request<'_>,
    accepted_is_enough: bool,
) -> Result<CommandNote, ControlError> {
    let Request { command, sender, limit } = request;
    let mut pending = Pending {
        directory,
        command,
        id: new_command_id(),
        was_sent: false,
        accepted: false,
        has_begun: false,
    };
    block_on(async {
        match timeout(limit, pending.send_until_answered(sender, accepted_is_enough)).await {
            Ok(answer) => answer,
            Err(_) if !pending.was_sent => {
                Err(ControlError::NotListening { name: directory.name() })
            }
            Err(_) => Err(ControlError::NoAnswer {
                name: directory.name(),
                command,
                limit,
                accepted: pending.accepted,
            }),
        }
    })
}

impl Pending<'_> {
    /// Sends the command, again if the connection breaks: the engine executes an id only once.
    async fn send_until_answered(
        &mut self,
        sender: &str,
        accepted_is_enough: bool,
    ) -> Result<CommandNote, ControlError> {
        let mut retries = 0;
        loop {
            match self.send_once(sender, accepted_is_enough).await {
                Err(
                    ControlError::Closed
                    | ControlError::Frame(FrameError::Io(_) | FrameError::Torn | FrameError::Stuck),
                ) if retries < RETRIES && is_alive(self.directory) => {
                    retries += 1;
                    tokio::time::sleep(BEFORE_RETRY).await;
                }
                answer => return answer,
            }
        }
    }

    async fn send_once(
        &mut self,
        sender: &str,
        accepted_is_enough: bool,
    ) -> Result<CommandNote, ControlError> {
        let mut connection = open_once_it_listens(self.directory, sender, GREETING).await?;
        self.was_sent = true;
        // Records first, since the answer may be among them.
        connection.send(&ClientMessage::Attach).await?;
        connection
            .send(&ClientMessage::Command { id: self.id.clone(), command: self.command })
            .await?;
        loop {
            let event = match connection.receive(SILENCE).await {
                Ok(ServerMessage::Record(record)) => record.event,
                Ok(ServerMessage::Snapshot(history)) => {
                    self.has_begun |= history.control != ControlState::Starting;
                    match history.end {
                        Some(end) => return self.ended(&end),
                        None => continue,
                    }
                }
                Ok(_) => continue,
                Err(ControlError::Closed) if !is_alive(self.directory) => {
                    return self.ended_silently().await;
                }
                Err(error) => return Err(error),
            };
            match event {
                RunEvent::CommandAccepted(note) if note.is_about(&self.id) => {
                    self.accepted = true;
                    if accepted_is_enough {
                        return Ok(note);
                    }
                }
                RunEvent::CommandDone(note) if note.is_about(&self.id) => {
                    if self.ends_the_run() {
                        wait_until_gone(self.directory).await;
                    }
                    return Ok(note);
                }
                RunEvent::CommandFailed(note) if note.is_about(&self.id) => {
                    return Err(ControlError::CommandFailed {
                        name: self.directory.name(),
                        command: self.command,
                        message: note.message,
                    });
                }
                RunEvent::ControlChanged(_) => self.has_begun = true,
                RunEvent::RunFinished(end) => {
                    wait_until_gone(self.directory).await;
                    return self.ended(&end);
                }
                _ => {}
            }
        }
    }

    fn ends_the_run(&self) -> bool {
        matches!(self.command, RunCommand::Stop | RunCommand::Kill)
    }

    /// The end of the run as an answer: success for a stop or kill, an error for other commands.
    fn ended(&self, end: &RunEnd) -> Result<CommandNote, ControlError> {
        let message = match (self.command, end.outcome) {
            (RunCommand::Kill, _) => format!("killed at step {}", end.step),
            (RunCommand::Stop, Outcome::Completed | Outcome::Stopped) => {
                format!("stopped at step {} with a checkpoint", end.step)
            }
            (RunCommand::Stop, Outcome::Interrupted) if !self.has_begun => {
                "stopped before training began".into()
            }
            _ => {
                let reason = match (&end.error, end.outcome) {
                    (Some(trouble), _) => trouble.message.clone(),
                    (None, Outcome::Interrupted) => {
                        format!("it was interrupted at step {} without a checkpoint", end.step)
                    }
                    (None, _) => format!("it ended at step {}", end.step),
                };
                return Err(self.ended_first(Some(reason)));
            }
        };
        let (id, command) = (self.id.clone(), self.command);
        Ok(CommandNote {
            id,
            command,
            from: String::new(),
            step: end.step,
            message,
            also: Vec::new(),
            seconds: None,
            bytes: None,
        })
    }

    /// The answer from the files of a run whose engine closed the connection and has ended.
    async fn ended_silently(&self) -> Result<CommandNote, ControlError> {
        match read_history(self.directory).await?.end {
            Some(end) => self.ended(&end),
            None => Err(self.ended_first(None)),
        }
    }

    fn ended_first(&self, reason: Option<String>) -> ControlError {
        ControlError::EndedFirst { name: self.directory.name(), command: self.command, reason }
    }
}
