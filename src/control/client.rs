//! One connection to an engine: finds it, exchanges greetings and messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::control::{
    ClientMessage, ControlError, FrameError, FrameReader, Hello, ServerMessage, frame,
};
use crate::record::{EngineInfo, Liveness, RunDirectory, is_alive};

/// Time limit for the engine's greeting; its control thread does nothing slow.
pub(crate) const GREETING: Duration = Duration::from_secs(3);

/// A connection after the greeting.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

/// A command id that is unique within the run.
pub(crate) fn new_command_id() -> String {
    static NUM_COMMANDS: AtomicU64 = AtomicU64::new(0);
    // Process ids are reused after a while; the clock distinguishes such processes.
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{}-{millis}-{}", std::process::id(), NUM_COMMANDS.fetch_add(1, Ordering::Relaxed) + 1)
}

/// Refuses a running run that accepts signals only: no client can reach it.
pub fn check_reachable(directory: &RunDirectory) -> Result<(), ControlError> {
    match EngineInfo::read(directory) {
        Some(info)
            if info.socket.is_none() && info.other_machine().is_none() && is_alive(directory) =>
        {
            Err(ControlError::SignalsOnly { name: directory.name(), pid: info.pid })
        }
        _ => Ok(()),
    }
}

impl Connection {
    /// Connects to the engine of `directory` and greets it as `sender`; waits at most `patience`
    /// for the answer.
    pub(crate) async fn open(
        directory: &RunDirectory,
        sender: &str,
        patience: Duration,
    ) -> Result<Self, ControlError> {
        let name = directory.name();
        let liveness = Liveness::of(directory);
        let info = match (liveness, EngineInfo::read(directory)) {
            (Liveness::Gone, _) => return Err(ControlError::NotAlive { name }),
            (Liveness::Unknown, None) => return Err(ControlError::NoLocks { name }),
            (Liveness::Alive, None) => return Err(ControlError::NotListening { name }),
            (_, Some(info)) => info,
        };
        let pid = info.pid;
        let unresponsive =
            || ControlError::Unresponsive { name: name.clone(), pid, waited: patience };
        let Some(socket) = info.socket.clone() else {
            return Err(match info.other_machine() {
                Some(host) => ControlError::OtherMachine { name, host: host.to_owned() },
                None => ControlError::SignalsOnly { name, pid },
            });
        };
        let stream = match timeout(patience, UnixStream::connect(&socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                return Err(match info.other_machine() {
                    Some(host) => ControlError::OtherMachine { name, host: host.to_owned() },
                    None if liveness == Liveness::Unknown => ControlError::NoLocks { name },
                    None => ControlError::Connect { name, socket, pid, source },
                });
            }
            Err(_) => return Err(unresponsive()),
        };
        let uid = stream.peer_cred().map_err(FrameError::from)?.uid();
        if uid != rustix::process::getuid().as_raw() {
            return Err(ControlError::ForeignPeer { socket, uid });
        }
        let (read, writer) = stream.into_split();
        let mut connection = Self { reader: FrameReader::new(read), writer };
        connection.send(&ClientMessage::Hello(Hello::from_here(sender))).await?;
        match connection.receive(patience).await {
            Ok(ServerMessage::Hello(hello)) => hello.check()?,
            Ok(_) => return Err(ControlError::Closed),
            Err(ControlError::Silent(_)) => return Err(unresponsive()),
            Err(error) => return Err(error),
        }
        Ok(connection)
    }

    pub(crate) async fn send(&mut self, message: &ClientMessage) -> Result<(), ControlError> {
        let bytes = frame(message)?;
        match timeout(GREETING, self.writer.write_all(&bytes)).await {
            Ok(written) => Ok(written.map_err(FrameError::from)?),
            Err(_) => Err(FrameError::Stuck.into()),
        }
    }

    /// The next message; cancel-safe.
    ///
    /// # Errors
    /// When the engine closes the connection, refuses the client, or is silent for longer than
    /// `silence`.
    pub(crate) async fn receive(
        &mut self,
        silence: Duration,
    ) -> Result<ServerMessage, ControlError> {
        match timeout(silence, self.reader.next()).await {
            Err(_) => Err(ControlError::Silent(silence)),
            Ok(message) => match message? {
                None => Err(ControlError::Closed),
                Some(ServerMessage::Refused { message }) => Err(ControlError::Refused { message }),
                Some(message) => Ok(message),
            },
        }
    }
}
