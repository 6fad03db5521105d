//! A client's link to an engine: receives records, sends commands, reconnects automatically.
//!
//! The link belongs to the run, not to one engine: after an engine has ended, the link waits for
//! the next one.

use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::control::client::{Connection, GREETING};
use crate::control::files::{look, read_history, wait_until_gone};
use crate::control::{ClientMessage, ControlError, HEARTBEAT, ServerMessage};
use crate::record::{History, Liveness, Record, RunCommand, RunDirectory, RunEvent};

/// Maximum number of messages that the screen may lag behind before the connection waits for it and
/// the engine sends a new snapshot.
const FEED: usize = 1024;
/// Polling interval for a resume after the run has ended.
const RESUMED_YET: Duration = Duration::from_secs(1);

/// A message to a client.
#[derive(Debug, Clone)]
pub enum Feed {
    /// Everything so far; replaces the previous state.
    Snapshot(Box<History>),
    /// One more record.
    Record(Box<Record>),
    /// A heartbeat: the engine is running and has nothing new.
    Heartbeat,
    /// The connection is lost; the next attempt follows after `retry_seconds`.
    Lost {
        /// Reason, for the user.
        reason: String,
        /// Seconds until the next attempt.
        retry_seconds: f64,
    },
    /// The engine has ended; `history` was read from its files.
    Ended {
        /// History from the files.
        history: Box<History>,
    },
}

/// The two ends of a link.
#[derive(Debug)]
pub struct EngineLink {
    /// Messages from the engine.
    pub feed: Receiver<Feed>,
    /// Commands to the engine, each with the id that its answers will have.
    pub commands: UnboundedSender<(String, RunCommand)>,
}

/// Timeouts of a link.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a heartbeat for this long, the connection counts as lost.
    pub silence: Duration,
    /// Wait before the first retry; doubles with each further one.
    pub first_retry: Duration,
    /// Maximum wait between two retries.
    pub last_retry: Duration,
    /// Polling interval for a resume after the run has ended.
    pub resumed_yet: Duration,
}

struct Link {
    directory: RunDirectory,
    sender: String,
    patience: Patience,
    feed: Sender<Feed>,
    commands: UnboundedReceiver<(String, RunCommand)>,
    /// The command being sent; kept until sending has succeeded, if necessary over another
    /// connection.
    unsent: Option<ClientMessage>,
    has_finished: bool,
    retry: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            first_retry: Duration::from_millis(250),
            last_retry: Duration::from_secs(5),
            resumed_yet: RESUMED_YET,
        }
    }
}

/// Attaches to the engine of `directory` as `sender`, and to the engine that resumes the run later,
/// until the feed is dropped.
///
/// Must be called inside a tokio runtime. A run without an engine is a [`Feed::Ended`]. A command
/// sent while the connection is lost is delivered after reconnecting; one sent after the end is
/// dropped.
#[must_use]
pub fn connect(directory: RunDirectory, sender: String) -> EngineLink {
    connect_with(directory, sender, Patience::default())
}

/// The same with other timeouts.
#[must_use]
pub fn connect_with(directory: RunDirectory, sender: String, patience: Patience) -> EngineLink {
    let (feed, feed_end) = mpsc::channel(FEED);
    let (commands_end, commands) = mpsc::unbounded_channel();
    let link = Link {
        directory,
        sender,
        patience,
        feed,
        commands,
        unsent: None,
        has_finished: false,
        retry: patience.first_retry,
    };
    tokio::spawn(link.run());
    EngineLink { feed: feed_end, commands: commands_end }
}

/// What to do next if no engine of this machine holds the lock.
enum After {
    /// Another engine is running.
    Engine,
    /// Nobody reads the feed any more.
    Nothing,
    /// The lock gives no information; the engine may be running elsewhere.
    Unknown,
}

impl Link {
    /// Connects repeatedly until nobody reads the feed any more.
    async fn run(mut self) {
        loop {
            let Err(error) = self.connect_once().await else { return };
            if self.has_finished {
                // This does not count as a lost connection.
                wait_until_gone(&self.directory).await;
            }
            let liveness = Liveness::of(&self.directory);
            let reason = if liveness == Liveness::Alive {
                error.to_string()
            } else {
                match self.after_the_engine(liveness).await {
                    Ok(After::Engine) => continue,
                    Ok(After::Nothing) => return,
                    Ok(After::Unknown) => error.to_string(),
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

    /// What to do next if no engine of this machine holds the lock.
    async fn after_the_engine(&mut self, liveness: Liveness) -> Result<After, ControlError> {
        if liveness == Liveness::Unknown {
            let history = read_history(&self.directory).await?;
            if history.end.is_none() {
                // Nothing indicates that it has ended.
                let _ = self.feed.send(Feed::Snapshot(Box::new(history))).await;
                return Ok(After::Unknown);
            }
        }
        Ok(if self.wait_for_next_engine().await? { After::Engine } else { After::Nothing })
    }

    /// Reports the end of the engine, then waits until another one is running. Returns whether the
    /// feed is still read.
    ///
    /// The run may also be resumed on another machine that shares its files: its engine cannot be
    /// reached from here, but its output is shown.
    async fn wait_for_next_engine(&mut self) -> Result<bool, ControlError> {
        let mut seen = look(&self.directory).await;
        let ended = Feed::Ended { history: Box::new(read_history(&self.directory).await?) };
        let mut is_open = self.feed.send(ended).await.is_ok();
        while is_open && seen.liveness != Liveness::Alive {
            tokio::select! {
                () = sleep(self.patience.resumed_yet) => {}
                () = self.feed.closed() => return Ok(false),
            }
            // The screen sends nothing while it shows the end.
            while self.commands.try_recv().is_ok() {}
            let now = look(&self.directory).await;
            if now.lengths != seen.lengths && now.liveness != Liveness::Alive {
                is_open = self.show_from_afar().await?;
            }
            seen = now;
        }
        (self.has_finished, self.unsent, self.retry) = (false, None, self.patience.first_retry);
        Ok(is_open)
    }

    /// Shows the output of an engine on another machine. Returns whether the feed is still read.
    async fn show_from_afar(&self) -> Result<bool, ControlError> {
        let history = Box::new(read_history(&self.directory).await?);
        let reason = "the run is on another machine; attach to it there to control it".to_owned();
        let lost = Feed::Lost { reason, retry_seconds: self.patience.resumed_yet.as_secs_f64() };
        Ok(self.feed.send(Feed::Snapshot(history)).await.is_ok()
            && self.feed.send(lost).await.is_ok())
    }

    /// Exchanges messages until the feed is dropped.
    ///
    /// # Errors
    /// When there is no connection, or it is lost.
    async fn connect_once(&mut self) -> Result<(), ControlError> {
        let mut connection = Connection::open(&self.directory, &self.sender, GREETING).await?;
        connection.send(&ClientMessage::Attach).await?;
        self.send_command(&mut connection).await?;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_commands = true;
        let mut silent_at = Instant::now() + self.patience.silence;
        loop {
            tokio::select! {
                message = connection.receive(self.patience.silence) => {
                    if !self.pass_on(message?).await {
                        return Ok(());
                    }
                    silent_at = Instant::now() + self.patience.silence;
                }
                command = self.commands.recv(), if has_commands => match command {
                    Some((id, command)) => {
                        self.unsent = Some(ClientMessage::Command { id, command });
                        self.send_command(&mut connection).await?;
                    }
                    None => has_commands = false,
                },
                _ = heartbeat.tick() => connection.send(&ClientMessage::Ping).await?,
                // Each iteration restarts the wait for a message, so silence is timed separately.
                () = sleep_until(silent_at) => return Err(ControlError::Silent(self.patience.silence)),
                () = self.feed.closed() => return Ok(()),
            }
        }
    }

    /// Sends the pending command, if any. After a failure it is unknown whether the engine received
    /// it; it is sent again over the next connection, and the engine executes an id only once.
    async fn send_command(&mut self, connection: &mut Connection) -> Result<(), ControlError> {
        if let Some(command) = &self.unsent {
            connection.send(command).await?;
            self.unsent = None;
        }
        Ok(())
    }

    /// Passes a message to the screen. Returns whether the screen still listens.
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
            ServerMessage::Ping => Feed::Heartbeat,
            ServerMessage::Hello(_) | ServerMessage::Refused { .. } | ServerMessage::Unknown => {
                return true;
            }
        };
        self.feed.send(feed).await.is_ok()
    }
}
