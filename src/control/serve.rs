//! One client's connection, on the engine's side.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use crate::control::protocol::{MAX_CLIENT_FRAME, MAX_ID};
use crate::control::strangers::{ConnectionLimits, Greeted};
use crate::control::{
    ClientMessage, FrameError, FrameReader, HEARTBEAT, Hello, ServerMessage, frame,
};
use crate::steer::{CommandEnvelope, CommandSender};

/// How long a client may leave messages unread before it is disconnected; it can reconnect.
const STUCK: Duration = Duration::from_secs(10);
/// Maximum length of a sender's name, in characters.
const SENDER_LENGTH: usize = 80;

/// The parts of the server that a client task uses.
#[derive(Debug, Clone)]
pub(crate) struct ServerHandle {
    pub snapshots: mpsc::Sender<oneshot::Sender<SnapshotReply>>,
    pub commands: CommandSender,
    pub run: String,
    pub limits: ConnectionLimits,
    /// Slots for clients that have greeted.
    pub places: Arc<Semaphore>,
}

/// Everything so far, and the stream of later records.
#[derive(Debug)]
pub(crate) struct SnapshotReply {
    pub snapshot: Result<Vec<u8>, FrameError>,
    /// `None` if no records follow.
    pub updates: Option<broadcast::Receiver<Arc<Update>>>,
}

/// What the server sends to all clients.
#[derive(Debug)]
pub(crate) enum Update {
    /// A record, as a frame.
    Record(Vec<u8>),
    /// Records were missed: each client needs a new snapshot.
    Resync,
}

struct ClientTask {
    reader: FrameReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    server: ServerHandle,
    from: String,
    updates: Option<broadcast::Receiver<Arc<Update>>>,
    /// A command for which the queue may have no room yet. Nothing more is read until it has, which
    /// slows down a client that sends too fast.
    sending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Held while the client is connected.
    place: Option<OwnedSemaphorePermit>,
}

/// Serves one client until it detaches, violates the protocol, or the run ends; other clients are
/// not affected.
pub(crate) async fn serve(stream: UnixStream, server: ServerHandle, greeted: Greeted) {
    let Ok(peer) = stream.peer_cred() else { return };
    // The folder is private already; this check holds even if somebody changed that.
    if peer.uid() != rustix::process::getuid().as_raw() {
        return;
    }
    let (read, writer) = stream.into_split();
    let reader = FrameReader::with_limit(read, MAX_CLIENT_FRAME);
    let mut client = ClientTask {
        reader,
        writer,
        server,
        from: String::new(),
        updates: None,
        sending: None,
        place: None,
    };
    let result = match client.greet(peer.pid()).await {
        Ok(true) => {
            greeted.set();
            client.run().await
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error @ (FrameError::TooLarge { .. } | FrameError::NotAMessage(_))) = result {
        let _ = client.send(&ServerMessage::Refused { message: error.to_string() }).await;
    }
}

impl ClientTask {
    /// Exchanges greetings. Returns whether the connection continues.
    async fn greet(&mut self, pid: Option<i32>) -> Result<bool, FrameError> {
        let hello = Hello::from_here(format!("engine of {}", self.server.run));
        self.send_if_there(&ServerMessage::Hello(hello)).await?;
        let Ok(first) = timeout(self.server.limits.greeting, self.reader.next()).await else {
            return Ok(false);
        };
        let Some(ClientMessage::Hello(hello)) = first? else {
            return self.refuse("the first message must be a greeting").await;
        };
        if let Err(error) = hello.check() {
            // From the client's point of view, the other side is this engine.
            return self.refuse(&format!("incompatible client: {error}")).await;
        }
        let Ok(place) = Arc::clone(&self.server.places).try_acquire_owned() else {
            return self
                .refuse(&format!(
                    "{} clients are connected to this run; close one of them",
                    self.server.limits.clients
                ))
                .await;
        };
        self.place = Some(place);
        let name: String = hello.sender.chars().take(SENDER_LENGTH).collect();
        self.from = match pid {
            Some(pid) => format!("{name} (pid {pid})"),
            None => name,
        };
        Ok(true)
    }

    async fn run(&mut self) -> Result<(), FrameError> {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let idle = self.server.limits.idle;
        let mut leaves_at = Instant::now() + idle;
        loop {
            tokio::select! {
                message = self.reader.next(), if self.sending.is_none() => match message? {
                    Some(message) => {
                        if !self.handle(message).await? { return Ok(()) }
                        leaves_at = Instant::now() + idle;
                    }
                    None => return Ok(()),
                },
                // A client that receives records may stay silent.
                () = sleep_until(leaves_at), if self.updates.is_none() && self.sending.is_none() => return Ok(()),
                () = sent(&mut self.sending) => self.sending = None,
                update = next_update(self.updates.as_mut()) => match update.as_deref() {
                    Ok(Update::Record(bytes)) => self.write(bytes).await?,
                    Ok(Update::Resync) | Err(RecvError::Lagged(_)) => if !self.send_snapshot(true).await? { return Ok(()) },
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = heartbeat.tick() => self.send_if_there(&ServerMessage::Ping).await?,
            }
        }
    }

    /// Handles a message. Returns whether the connection continues.
    async fn handle(&mut self, message: ClientMessage) -> Result<bool, FrameError> {
        match message {
            ClientMessage::Attach => return self.send_snapshot(true).await,
            ClientMessage::Status => return self.send_snapshot(false).await,
            ClientMessage::Command { id, .. } if id.len() > MAX_ID => {
                return self.refuse(&format!("a command id may have at most {MAX_ID} bytes")).await;
            }
            ClientMessage::Command { id, command } => {
                let envelope = CommandEnvelope { id, command, from: self.from.clone() };
                let commands = self.server.commands.clone();
                self.sending = Some(Box::pin(commands.send_when_possible(envelope)));
            }
            ClientMessage::Ping | ClientMessage::Hello(_) | ClientMessage::Unknown => {}
        }
        Ok(true)
    }

    /// Sends everything so far, and later records if `subscribe`. Returns whether more will follow.
    async fn send_snapshot(&mut self, subscribe: bool) -> Result<bool, FrameError> {
        let (reply, answer) = oneshot::channel();
        if self.server.snapshots.send(reply).await.is_err() {
            return Ok(false);
        }
        let Ok(SnapshotReply { snapshot, updates }) = answer.await else { return Ok(false) };
        self.write(&snapshot?).await?;
        let is_over = updates.is_none();
        if subscribe {
            self.updates = updates;
        }
        Ok(!is_over)
    }

    /// Tells the client why it is disconnected.
    async fn refuse(&mut self, message: &str) -> Result<bool, FrameError> {
        self.send(&ServerMessage::Refused { message: message.into() }).await?;
        Ok(false)
    }

    /// Sends a message that a client may miss if it has disconnected: its earlier messages are
    /// still read.
    async fn send_if_there(&mut self, message: &ServerMessage) -> Result<(), FrameError> {
        match self.send(message).await {
            Err(FrameError::Io(_)) => Ok(()),
            sent => sent,
        }
    }

    async fn send(&mut self, message: &ServerMessage) -> Result<(), FrameError> {
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

/// Resolves when the pending command is in the queue; never without one.
async fn sent(sending: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    match sending {
        Some(sending) => sending.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next_update(
    updates: Option<&mut broadcast::Receiver<Arc<Update>>>,
) -> Result<Arc<Update>, RecvError> {
    match updates {
        Some(updates) => updates.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::task::JoinSet;

    use super::*;
    use crate::control::strangers::Strangers;
    use crate::steer::command_channel;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        greeting: Duration::from_millis(20),
        idle: Duration::from_millis(20),
        strangers: 3,
        clients: 2,
    };

    fn handle(limits: ConnectionLimits) -> ServerHandle {
        let places = Arc::new(Semaphore::new(limits.clients));
        ServerHandle {
            snapshots: mpsc::channel(1).0,
            commands: command_channel().0,
            run: "books".into(),
            limits,
            places,
        }
    }

    fn in_time<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            timeout(Duration::from_mins(1), test).await.expect("the connection stays open")
        })
    }

    /// Everything that the engine sends until it closes the connection.
    async fn said(mut client: UnixStream) -> String {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn hello(client: &mut UnixStream) {
        client
            .write_all(&frame(&ClientMessage::Hello(Hello::from_here("test"))).unwrap())
            .await
            .unwrap();
    }

    #[test]
    fn a_client_that_says_nothing_is_sent_away_before_and_after_its_greeting() {
        in_time(async {
            for greets in [false, true] {
                let (mut client, server) = UnixStream::pair().unwrap();
                if greets {
                    hello(&mut client).await;
                }
                tokio::join!(serve(server, handle(LIMITS), Greeted::default()), said(client));
            }
        });
    }

    #[test]
    fn one_client_too_many_is_told_so_and_the_others_stay() {
        in_time(async {
            let handle = handle(ConnectionLimits { idle: Duration::MAX / 4, ..LIMITS });
            let mut tasks = JoinSet::new();
            let mut stays = Vec::new();
            for _ in 0..LIMITS.clients {
                let (mut client, server) = UnixStream::pair().unwrap();
                hello(&mut client).await;
                tasks.spawn(serve(server, handle.clone(), Greeted::default()));
                stays.push(client);
            }
            while handle.places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let (mut client, server) = UnixStream::pair().unwrap();
            hello(&mut client).await;
            let ((), said) =
                tokio::join!(serve(server, handle.clone(), Greeted::default()), said(client));
            assert!(said.contains("2 clients are connected"), "{said}");
            drop(stays);
            while tasks.join_next().await.is_some() {}
            assert_eq!(handle.places.available_permits(), LIMITS.clients);
        });
    }

    #[test]
    fn a_stranger_gives_its_place_to_the_next_one_and_a_client_does_not() {
        in_time(async {
            let handle = handle(ConnectionLimits {
                greeting: Duration::MAX / 4,
                idle: Duration::MAX / 4,
                ..LIMITS
            });
            let (mut tasks, mut strangers, mut ends) =
                (JoinSet::new(), Strangers::default(), Vec::new());
            for idx in 0..10 {
                let (mut client, server) = UnixStream::pair().unwrap();
                if idx == 0 {
                    hello(&mut client).await;
                }
                ends.push(client);
                let greeted = Greeted::default();
                let task = tasks.spawn(serve(server, handle.clone(), greeted.clone()));
                if idx == 0 {
                    while handle.places.available_permits() == LIMITS.clients {
                        tokio::task::yield_now().await;
                    }
                }
                strangers.add(task, greeted, LIMITS.strangers);
            }
            // Nine silent connections for three places: six were closed.
            for _ in 0..6 {
                assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
            }
            assert_eq!((tasks.len(), handle.places.available_permits()), (4, LIMITS.clients - 1));
        });
    }
}
