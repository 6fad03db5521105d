//! One question, one answer: what scripts and `ctl` use. Blocks; not for use inside an async runtime.

use std::time::Duration;

use tokio::time::timeout;

use crate::control::client::{Connection, new_command_id};
use crate::control::link::read_history;
use crate::control::{ClientMessage, ControlError, ServerMessage};
use crate::run::{History, RunCommand, RunDirectory, RunEvent, is_alive};

/// Without even a heartbeat for this long, the engine counts as lost.
const SILENCE: Duration = Duration::from_secs(10);

/// Tells the run of `directory` to do something, as `sender`, and waits at most `limit` until it is done.
///
/// Returns what the engine says was done. Blocks; must not be called inside an async runtime.
///
/// # Errors
/// When no engine is alive, when it cannot do it, or when it does not answer in time; then it may still do it.
pub fn request(directory: &RunDirectory, command: RunCommand, sender: &str, limit: Duration) -> Result<String, ControlError> {
    block_on(async {
        let mut accepted = false;
        let asked = ask(directory, command, sender, &mut accepted);
        timeout(limit, asked).await.unwrap_or(Err(ControlError::NoAnswer { command, limit, accepted }))
    })
}

/// What the run of `directory` has said so far: from its engine if it is alive, else from its files.
///
/// Blocks; must not be called inside an async runtime.
pub fn status(directory: &RunDirectory, sender: &str) -> Result<History, ControlError> {
    block_on(async {
        match snapshot(directory, sender).await {
            Ok(history) => Ok(history),
            // It may have ended just now, or may not listen yet: the files always answer.
            Err(_) => read_history(directory).await,
        }
    })
}

/// Whether the engine of `directory` answers.
///
/// Blocks; must not be called inside an async runtime.
pub fn greet(directory: &RunDirectory, sender: &str) -> Result<(), ControlError> {
    block_on(async { Connection::open(directory, sender).await.map(drop) })
}

fn block_on<T>(future: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Start)?.block_on(future)
}

async fn snapshot(directory: &RunDirectory, sender: &str) -> Result<History, ControlError> {
    let mut connection = Connection::open(directory, sender).await?;
    connection.say(&ClientMessage::Status).await?;
    loop {
        if let ServerMessage::Snapshot(history) = connection.hear(SILENCE).await? {
            return Ok(*history);
        }
    }
}

async fn ask(directory: &RunDirectory, command: RunCommand, sender: &str, accepted: &mut bool) -> Result<String, ControlError> {
    let mut connection = Connection::open(directory, sender).await?;
    // First the records, so that the answer is among them.
    connection.say(&ClientMessage::Attach).await?;
    let id = new_command_id();
    connection.say(&ClientMessage::Command { id: id.clone(), command }).await?;
    loop {
        let event = match connection.hear(SILENCE).await {
            Ok(ServerMessage::Record(record)) => record.event,
            Ok(ServerMessage::Snapshot(history)) if history.end.is_some() => return Err(ControlError::EndedFirst { command }),
            Ok(_) => continue,
            Err(ControlError::Closed) if !is_alive(directory) => return ended(command, "the run has ended".into()),
            Err(error) => return Err(error),
        };
        match event {
            RunEvent::CommandAccepted(note) if note.id == id => *accepted = true,
            RunEvent::CommandDone(note) if note.id == id => return Ok(note.message),
            RunEvent::CommandFailed(note) if note.id == id => return Err(ControlError::CommandFailed { command, message: note.message }),
            RunEvent::RunFinished(end) => return ended(command, format!("the run has ended at step {}", end.step)),
            _ => {}
        }
    }
}

/// The end of the run is an answer to those who asked for it.
fn ended(command: RunCommand, message: String) -> Result<String, ControlError> {
    match command {
        RunCommand::Stop | RunCommand::Kill => Ok(message),
        _ => Err(ControlError::EndedFirst { command }),
    }
}
