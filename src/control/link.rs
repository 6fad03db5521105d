//! What a client holds of an engine: records come in, commands go out, reconnecting happens behind it.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::control::client::Connection;
use crate::control::{ClientMessage, ControlError, HEARTBEAT, ServerMessage};
use crate::run::{History, Record, RunCommand, RunDirectory, RunEvent, is_alive};

/// Messages that the screen may be behind before the connection waits for it, and the engine sends everything anew.
const FEED: usize = 1024;
/// How often a process that said goodbye is asked whether it is gone.
const GONE_YET: Duration = Duration::from_millis(20);
/// How long it may take for that.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a client hears.
#[derive(Debug, Clone)]
pub enum Feed {
    /// Everything so far; replaces what was known before.
    Snapshot(Box<History>),
    /// One more record.
    Record(Box<Record>),
    /// The engine is there, though it has nothing new to say.
    Heard,
    /// The connection is gone; it is tried again after `retry_seconds`.
    Lost {
        /// Why.
        reason: String,
        /// When the next try is.
        retry_seconds: f64,
    },
    /// The engine's process has ended, and `history` is what its files say.
    Ended {
        /// What the files say.
        history: Box<History>,
    },
}

/// A client's two ends.
#[derive(Debug)]
pub struct EngineLink {
    /// What the engine says.
    pub feed: Receiver<Feed>,
    /// What the engine is told, each with the id that its answers will carry.
    pub commands: UnboundedSender<(String, RunCommand)>,
}

/// How patient a link is.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without even a heartbeat for this long, the connection counts as lost.
    pub silence: Duration,
    /// Before the first new try; each further one waits twice as long.
    pub first_retry: Duration,
    /// Longest wait between two tries.
    pub last_retry: Duration,
}

struct Link {
    directory: RunDirectory,
    sender: String,
    patience: Patience,
    feed: Sender<Feed>,
    commands: UnboundedReceiver<(String, RunCommand)>,
    has_finished: bool,
    retry: Duration,
}

/// How a connection ended.
enum Parting {
    /// Nobody listens to the feed any more.
    Unwanted,
    /// The engine is not heard any more.
    Lost(ControlError),
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Duration::from_secs(5), first_retry: Duration::from_millis(250), last_retry: Duration::from_secs(5) }
    }
}

/// Attaches to the engine of `directory` as `sender`, and stays attached until it ends or the feed is dropped.
///
/// Must be called inside a tokio runtime. An engine that is not alive is a feed of one [`Feed::Ended`]. A command that is sent
/// while the connection is lost is delivered when it is back.
#[must_use]
pub fn connect(directory: RunDirectory, sender: String) -> EngineLink {
    connect_with(directory, sender, Patience::default())
}

/// The same with another patience.
#[must_use]
pub fn connect_with(directory: RunDirectory, sender: String, patience: Patience) -> EngineLink {
    let (feed, feed_end) = mpsc::channel(FEED);
    let (commands_end, commands) = mpsc::unbounded_channel();
    let link = Link { directory, sender, patience, feed, commands, has_finished: false, retry: patience.first_retry };
    tokio::spawn(link.hold());
    EngineLink { feed: feed_end, commands: commands_end }
}

/// Reads the files of a run without blocking the runtime.
pub(crate) async fn read_history(directory: &RunDirectory) -> Result<History, ControlError> {
    let (directory, name) = (directory.clone(), directory.name());
    let read = spawn_blocking(move || History::read(&directory)).await;
    let files_error = |source| ControlError::Files { name, source };
    match read {
        Ok(Ok((history, _))) => Ok(history),
        Ok(Err(source)) => Err(files_error(source)),
        Err(error) => Err(files_error(std::io::Error::other(error))),
    }
}

impl Link {
    async fn hold(mut self) {
        loop {
            let error = match self.converse().await {
                Parting::Unwanted => return,
                Parting::Lost(error) => error,
            };
            if self.has_finished {
                self.wait_until_gone().await;
            }
            let reason = if is_alive(&self.directory) {
                error.to_string()
            } else {
                match read_history(&self.directory).await {
                    Ok(history) => return drop(self.feed.send(Feed::Ended { history: Box::new(history) }).await),
                    Err(error) => error.to_string(),
                }
            };
            let retry_seconds = self.retry.as_secs_f64();
            if self.feed.send(Feed::Lost { reason, retry_seconds }).await.is_err() {
                return;
            }
            tokio::select! {
                () = sleep(self.retry) => {}
                () = self.feed.closed() => return,
            }
            self.retry = (self.retry * 2).min(self.patience.last_retry);
        }
    }

    async fn converse(&mut self) -> Parting {
        let talked = match Connection::open(&self.directory, &self.sender).await {
            Ok(connection) => self.talk(connection).await,
            Err(error) => Err(error),
        };
        match talked {
            Ok(()) => Parting::Unwanted,
            Err(error) => Parting::Lost(error),
        }
    }

    /// Talks until the feed is dropped.
    async fn talk(&mut self, mut connection: Connection) -> Result<(), ControlError> {
        connection.say(&ClientMessage::Attach).await?;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_commands = true;
        let mut silent_at = Instant::now() + self.patience.silence;
        loop {
            tokio::select! {
                message = connection.hear(self.patience.silence) => {
                    if !self.pass_on(message?).await {
                        return Ok(());
                    }
                    silent_at = Instant::now() + self.patience.silence;
                }
                command = self.commands.recv(), if has_commands => match command {
                    Some((id, command)) => {
                        connection.say(&ClientMessage::Command { id, command }).await?;
                    }
                    None => has_commands = false,
                },
                _ = heartbeat.tick() => connection.say(&ClientMessage::Ping).await?,
                // Each turn of this loop starts the wait for a message anew, so the silence has a clock of its own.
                () = sleep_until(silent_at) => return Err(ControlError::Silent(self.patience.silence)),
                () = self.feed.closed() => return Ok(()),
            }
        }
    }

    /// Hands a message to the screen; says whether anybody is there.
    async fn pass_on(&mut self, message: ServerMessage) -> bool {
        let feed = match message {
            ServerMessage::Snapshot(history) => {
                self.retry = self.patience.first_retry;
                self.has_finished = history.end.is_some();
                Feed::Snapshot(history)
            }
            ServerMessage::Record(record) => {
                self.has_finished = matches!(record.event, RunEvent::RunFinished(_));
                Feed::Record(record)
            }
            ServerMessage::Ping => Feed::Heard,
            ServerMessage::Hello(_) | ServerMessage::Refused { .. } => return true,
        };
        self.feed.send(feed).await.is_ok()
    }

    /// A process that has said how its run ended needs a moment to be gone; that is no lost connection.
    async fn wait_until_gone(&self) {
        let limit = Instant::now() + GOODBYE;
        while is_alive(&self.directory) && Instant::now() < limit {
            sleep(GONE_YET).await;
        }
    }
}
