//! One client's conversation, as the engine holds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::control::{ClientMessage, FrameError, FrameReader, HEARTBEAT, Hello, ServerMessage, frame};
use crate::run::{CommandEnvelope, CommandSender};

/// How long a client may take to greet.
const GREETING: Duration = Duration::from_secs(5);
/// How long a client may leave its end unread before it is sent away; it can come back.
const STUCK: Duration = Duration::from_secs(10);
/// Characters of a sender's name that are kept.
const SENDER_LENGTH: usize = 80;

/// What a client's task may ask of the door.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) requests: mpsc::Sender<oneshot::Sender<Welcome>>,
    pub(crate) commands: CommandSender,
    pub(crate) run: String,
}

/// Everything so far, and what comes after it.
#[derive(Debug)]
pub(crate) struct Welcome {
    pub(crate) snapshot: Result<Vec<u8>, FrameError>,
    /// `None` when nothing comes any more.
    pub(crate) pushes: Option<broadcast::Receiver<Arc<Push>>>,
}

/// What the door hands to all clients.
#[derive(Debug)]
pub(crate) enum Push {
    /// A record, as a frame.
    Record(Vec<u8>),
    /// Everything has to be sent anew.
    Anew,
}

struct Conversation {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    guest: Guest,
    from: String,
    pushes: Option<broadcast::Receiver<Arc<Push>>>,
}

/// Talks with one client until it leaves, breaks the rules, or the run is over; nothing of that concerns anybody else.
pub(crate) async fn serve(stream: UnixStream, guest: Guest) {
    let Ok(peer) = stream.peer_cred() else { return };
    // The folder is private already; this holds even if somebody opened it.
    if peer.uid() != rustix::process::getuid().as_raw() {
        return;
    }
    let (read, writer) = stream.into_split();
    let mut conversation = Conversation { reader: FrameReader::new(read), writer, guest, from: String::new(), pushes: None };
    let talked = match conversation.greet(peer.pid()).await {
        Ok(true) => conversation.talk().await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error @ (FrameError::TooLarge { .. } | FrameError::NotAMessage(_))) = talked {
        let _ = conversation.say(&ServerMessage::Refused { message: error.to_string() }).await;
    }
}

impl Conversation {
    /// Greets both ways; says whether the conversation goes on.
    async fn greet(&mut self, pid: Option<i32>) -> Result<bool, FrameError> {
        let hello = Hello::from_here(format!("engine of {}", self.guest.run));
        self.say(&ServerMessage::Hello(hello)).await?;
        let Ok(first) = timeout(GREETING, self.reader.next()).await else { return Ok(false) };
        let Some(ClientMessage::Hello(hello)) = first? else {
            self.say(&ServerMessage::Refused { message: "the first message must be a greeting".into() }).await?;
            return Ok(false);
        };
        if let Err(error) = hello.check() {
            // Seen from the client, the other side is this engine.
            let message = format!("this engine does not understand the client: {error}");
            self.say(&ServerMessage::Refused { message }).await?;
            return Ok(false);
        }
        let name: String = hello.sender.chars().take(SENDER_LENGTH).collect();
        self.from = match pid {
            Some(pid) => format!("{name} (pid {pid})"),
            None => name,
        };
        Ok(true)
    }

    async fn talk(&mut self) -> Result<(), FrameError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.reader.next() => match message? {
                    Some(message) => if !self.obey(message).await? { return Ok(()) },
                    None => return Ok(()),
                },
                push = next_push(self.pushes.as_mut()) => match push.as_deref() {
                    Ok(Push::Record(bytes)) => self.write(bytes).await?,
                    Ok(Push::Anew) | Err(RecvError::Lagged(_)) => if !self.welcome(true).await? { return Ok(()) },
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = heartbeat.tick() => self.say(&ServerMessage::Ping).await?,
            }
        }
    }

    async fn obey(&mut self, message: ClientMessage) -> Result<bool, FrameError> {
        match message {
            ClientMessage::Attach => return self.welcome(true).await,
            ClientMessage::Status => return self.welcome(false).await,
            ClientMessage::Command { id, command } => self.guest.commands.send(CommandEnvelope { id, command, from: self.from.clone() }),
            ClientMessage::Ping | ClientMessage::Hello(_) => {}
        }
        Ok(true)
    }

    /// Sends everything so far; says whether there is more to come.
    async fn welcome(&mut self, stays: bool) -> Result<bool, FrameError> {
        let (reply, answer) = oneshot::channel();
        if self.guest.requests.send(reply).await.is_err() {
            return Ok(false);
        }
        let Ok(welcome) = answer.await else { return Ok(false) };
        self.write(&welcome.snapshot?).await?;
        let is_over = welcome.pushes.is_none();
        if stays {
            self.pushes = welcome.pushes;
        }
        Ok(!is_over)
    }

    async fn say(&mut self, message: &ServerMessage) -> Result<(), FrameError> {
        let bytes = frame(message)?;
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        match timeout(STUCK, self.writer.write_all(bytes)).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(FrameError::Stuck),
        }
    }
}

async fn next_push(pushes: Option<&mut broadcast::Receiver<Arc<Push>>>) -> Result<Arc<Push>, RecvError> {
    match pushes {
        Some(pushes) => pushes.recv().await,
        None => std::future::pending().await,
    }
}
