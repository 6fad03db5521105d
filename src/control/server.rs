//! The engine's door: lets clients in, shows them the run, passes on what they and the signals ask.
//!
//! Lives on one named thread. One task, the door, keeps the run's [`History`] and accepts; one task per client talks. The door
//! hands records to clients without waiting: a client that falls behind gets everything anew. Start at [`Server::start`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as ready;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::OnUsr1;
use crate::control::serve::{Guest, Push, Welcome, serve};
use crate::control::signals::{Heard, Signals};
use crate::control::socket::BoundSocket;
use crate::control::{ControlError, FrameError, ServerMessage, frame, socket_path};
use crate::run::{CommandSender, EventSender, History, Record, RunEvent, Subscription, Warning};

/// Records that a client may be behind before it gets everything anew.
const BACKLOG: usize = 1024;
/// Points of the objective that a client gets; a wide screen has fewer columns of dots.
const POINTS: usize = 4096;
/// How often the socket's file is looked at.
const CHECK: Duration = Duration::from_secs(3);
/// How long clients may take to read the end of the run.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a server needs.
#[derive(Debug)]
pub struct ServerSetup {
    /// The run, from the store.
    pub subscription: Subscription,
    /// Where commands go.
    pub commands: CommandSender,
    /// Where the server's own warnings go.
    pub events: EventSender,
    /// What to do on SIGUSR1; `None` leaves all signals to the process.
    pub signals: Option<OnUsr1>,
}

/// The running server. Dropping it shows clients what the store has handed over, then ends it.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Door {
    setup: ServerSetup,
    socket: BoundSocket,
    signals: Option<Signals>,
    history: History,
    pushes: broadcast::Sender<Arc<Push>>,
    requests: mpsc::Receiver<oneshot::Sender<Welcome>>,
    guest: Guest,
    clients: JoinSet<()>,
    is_unreachable: bool,
}

impl Server {
    /// Opens the socket and takes the signals over; both work when this returns.
    pub fn start(setup: ServerSetup) -> Result<Self, ControlError> {
        let socket = socket_path(&setup.subscription.directory)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ControlError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = ready::channel();
        let path = socket.clone();
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            runtime.block_on(async {
                match Door::open(setup, &path) {
                    Ok(door) => {
                        let _ = report.send(Ok(()));
                        door.stand(stopped).await;
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            });
            // A history that is still being read again must not hold the process up.
            runtime.shutdown_background();
        });
        let thread = thread.map_err(ControlError::Start)?;
        ready.recv().unwrap_or_else(|_| Err(ControlError::Start(std::io::Error::other("its thread broke"))))?;
        Ok(Self { socket, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Door {
    fn open(mut setup: ServerSetup, path: &Path) -> Result<Self, ControlError> {
        let socket = BoundSocket::bind(path).map_err(|source| ControlError::Listen { path: path.to_path_buf(), source })?;
        let signals = setup.signals.map(Signals::install).transpose().map_err(ControlError::Start)?;
        let (request, requests) = mpsc::channel(16);
        let guest = Guest { requests: request, commands: setup.commands.clone(), run: setup.subscription.directory.name() };
        Ok(Self {
            history: std::mem::take(&mut setup.subscription.history),
            setup,
            socket,
            signals,
            pushes: broadcast::channel(BACKLOG).0,
            requests,
            guest,
            clients: JoinSet::new(),
            is_unreachable: false,
        })
    }

    async fn stand(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                record = self.setup.subscription.records.recv() => match record {
                    Some(record) => self.show(&record).await,
                    None => break,
                },
                accepted = self.socket.listener.accept() => match accepted {
                    Ok((stream, _)) => drop(self.clients.spawn(serve(stream, self.guest.clone()))),
                    // Out of file descriptors: the waiting client would be reported again at once.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
                Some(request) = self.requests.recv() => self.welcome(request),
                Some(_) = self.clients.join_next() => {}
                heard = Signals::next(&mut self.signals) => self.hear(heard),
                _ = check.tick() => if !self.socket.is_in_place() { self.bind_again() },
                _ = &mut stopped => break,
            }
        }
        while let Ok(record) = self.setup.subscription.records.try_recv() {
            self.show(&record).await;
        }
        self.part().await;
    }

    /// Lets clients read what they were sent, for a moment.
    async fn part(self) {
        let Self { pushes, mut clients, mut requests, guest, socket, history, setup, .. } = self;
        drop((pushes, guest, socket, setup));
        let _ = timeout(FAREWELL, async {
            loop {
                tokio::select! {
                    joined = clients.join_next() => if joined.is_none() { break },
                    // A client that fell behind just now still wants the end of the story.
                    Some(request) = requests.recv() => drop(request.send(Welcome::to_the_end(&history))),
                }
            }
        })
        .await;
    }

    async fn show(&mut self, record: &Record) {
        // Numbers follow one another here, so a gap means that the mailbox was full; the files have what is missing.
        if record.seq > self.history.last_seq + 1 {
            self.read_again().await;
        }
        if record.seq <= self.history.last_seq {
            return;
        }
        self.history.apply(record);
        if let Ok(bytes) = frame(&ServerMessage::Record(Box::new(record.clone()))) {
            // Without clients there is nobody to send to, which is no failure.
            let _ = self.pushes.send(Arc::new(Push::Record(bytes)));
        }
    }

    async fn read_again(&mut self) {
        let directory = self.setup.subscription.directory.clone();
        if let Ok(Ok((history, _))) = spawn_blocking(move || History::read(&directory)).await
            && history.last_seq > self.history.last_seq
        {
            self.history = history;
        }
        let _ = self.pushes.send(Arc::new(Push::Anew));
    }

    fn welcome(&self, request: oneshot::Sender<Welcome>) {
        // Taken together, so that no record falls between the snapshot and what follows it.
        let welcome = Welcome { snapshot: snapshot_frame(&self.history), pushes: Some(self.pushes.subscribe()) };
        let _ = request.send(welcome);
    }

    fn hear(&mut self, heard: Heard) {
        if heard == Heard::Rebind {
            self.bind_again();
        }
        if let Some(signals) = &mut self.signals {
            signals.obey(heard, &self.setup.commands, &self.setup.events);
        }
    }

    /// Says once when the door cannot be put back, and once when it can again.
    fn bind_again(&mut self) {
        let warn = |message: String| self.setup.events.send(RunEvent::Warning(Warning { message }));
        match self.socket.bind_again() {
            Ok(()) => {
                warn("the engine's socket was opened anew".into());
                self.is_unreachable = false;
            }
            Err(error) if !self.is_unreachable => {
                warn(format!("the engine's socket is gone and cannot be opened again: {error}; the run goes on"));
                self.is_unreachable = true;
            }
            Err(_) => {}
        }
    }
}

impl Welcome {
    fn to_the_end(history: &History) -> Self {
        Self { snapshot: snapshot_frame(history), pushes: None }
    }
}

/// The largest picture of the run that fits into a frame: what screens show as curves gets coarser, nothing is left out.
fn snapshot_frame(history: &History) -> Result<Vec<u8>, FrameError> {
    let mut message = ServerMessage::Snapshot(Box::new(history.thinned(POINTS)));
    loop {
        let framed = frame(&message);
        let ServerMessage::Snapshot(history) = &mut message else { return framed };
        let can_shrink = history.activations.len() + history.evaluations.len() + history.samples.len() > 1;
        if !(can_shrink && matches!(framed, Err(FrameError::TooLarge { .. }))) {
            return framed;
        }
        keep_every_second(&mut history.activations);
        keep_every_second(&mut history.evaluations);
        history.samples.drain(..history.samples.len().div_ceil(2));
    }
}

/// The last one always stays.
fn keep_every_second<T>(items: &mut Vec<T>) {
    let parity = items.len() % 2;
    let mut idx = 0;
    items.retain(|_| {
        idx += 1;
        idx % 2 == parity
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Activations, LayerActivation};

    #[test]
    fn thinning_by_half_keeps_the_newest() {
        let mut items = vec![1, 2, 3, 4];
        keep_every_second(&mut items);
        assert_eq!(items, [2, 4]);
        let mut items = vec![1, 2, 3];
        keep_every_second(&mut items);
        assert_eq!(items, [1, 3]);
    }

    #[test]
    fn a_history_too_large_for_a_frame_gets_coarser_instead_of_unreachable() {
        let layers = vec![LayerActivation { rate: 12.345_678_9, mean_abs: 0.123_456_789 }; 1000];
        let of_step = |step| Activations { step, stage: 0, patch_size: crate::config::PatchSize::ONE, tokens: step, threshold: 0.5, layers: layers.clone() };
        let history = History { activations: (1..=1000).map(of_step).collect(), ..History::default() };
        assert!(matches!(frame(&ServerMessage::Snapshot(Box::new(history.clone()))), Err(FrameError::TooLarge { .. })));
        let bytes = snapshot_frame(&history).unwrap();
        let ServerMessage::Snapshot(read) = serde_json::from_slice(&bytes[4..]).unwrap() else { panic!("not a snapshot") };
        assert_eq!(read.activations.last().unwrap().step, 1000);
        assert!(read.activations.len() > 100);
    }
}
