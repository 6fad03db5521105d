//! The engine's control server: accepts clients, sends them the run's records, passes on commands
//! from clients and signals.
//!
//! Runs on one named thread. One task keeps the run's [`History`] and accepts connections; one task
//! per client communicates. The first passes records on without waiting: a client that falls behind
//! gets a new snapshot. Start at [`Server::start`].

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as ready;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::config::OnUsr1;
use crate::control::serve::{ServerHandle, SnapshotReply, Update, serve};
use crate::control::signals::{SignalRequest, Signals};
use crate::control::socket::{BoundSocket, listen};
use crate::control::strangers::{ConnectionLimits, Greeted, Strangers};
use crate::control::{ControlError, FrameError, ServerMessage, frame};
use crate::record::{EngineInfo, EventSender, History, Record, Subscription};
use crate::steer::CommandSender;

/// Maximum number of records that a client may lag behind before it gets a new snapshot.
const BACKLOG: usize = 1024;
/// Maximum number of points of the objective sent to a client; a wide screen has fewer columns of
/// dots.
const POINTS: usize = 4096;
/// How often the socket file is checked.
const CHECK: Duration = Duration::from_secs(3);
/// Time limit for clients to read the end of the run.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause in accepting when the system has run out of file descriptors.
const BETWEEN_ACCEPTS: Duration = Duration::from_millis(100);

/// Inputs of a server.
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

/// The running server. Dropping it delivers the remaining records to the clients, then ends it.
#[derive(Debug)]
pub struct Server {
    socket: Option<PathBuf>,
    problem: Option<ControlError>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct ServerLoop {
    setup: ServerSetup,
    /// `None` if no socket could be opened: signals still work.
    socket: Option<BoundSocket>,
    signals: Option<Signals>,
    history: History,
    updates: broadcast::Sender<Arc<Update>>,
    snapshots: mpsc::Receiver<oneshot::Sender<SnapshotReply>>,
    handle: ServerHandle,
    clients: JoinSet<()>,
    strangers: Strangers,
    is_unreachable: bool,
}

/// Path of the socket, or why none could be opened.
type Listening = Result<PathBuf, ControlError>;

/// Handles signals if the server itself has failed.
struct SignalsOnly {
    commands: CommandSender,
    events: EventSender,
    signals: Option<OnUsr1>,
    run: String,
}

impl Server {
    /// Takes over the signals and opens the socket. When this returns, signals work, and so does
    /// the socket, if one could be opened.
    ///
    /// # Errors
    /// When the thread, the runtime or the signal handlers cannot be created.
    pub fn start(setup: ServerSetup) -> Result<Self, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ControlError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = ready::channel();
        let run = setup.subscription.directory.name();
        let fallback = SignalsOnly {
            commands: setup.commands.clone(),
            events: setup.events.clone(),
            signals: setup.signals,
            run,
        };
        let thread = thread::Builder::new().name("control".into()).spawn(move || {
            supervise(
                &runtime,
                stopped,
                fallback,
                async move |stopped: &mut oneshot::Receiver<()>| match ServerLoop::open(setup) {
                    Ok((server, listening)) => {
                        let _ = report.send(Ok(listening));
                        server.run(stopped).await;
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                },
            );
            // A history that is still being read must not delay the process.
            runtime.shutdown_background();
        });
        let thread = thread.map_err(ControlError::Start)?;
        let listening = ready.recv().unwrap_or_else(|_| {
            Err(ControlError::Start(std::io::Error::other("its thread panicked")))
        })?;
        let (socket, problem) = match listening {
            Ok(path) => (Some(path), None),
            Err(problem) => (None, Some(problem)),
        };
        Ok(Self { socket, problem, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, if a socket could be opened.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Why no socket could be opened; returned once.
    pub fn take_problem(&mut self) -> Option<ControlError> {
        self.problem.take()
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

/// Runs `server`; if it panics, continues with signals only, so that the run can still be stopped.
fn supervise<S>(
    runtime: &Runtime,
    mut stopped: oneshot::Receiver<()>,
    fallback: SignalsOnly,
    server: S,
) where
    S: AsyncFnOnce(&mut oneshot::Receiver<()>),
{
    let result =
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(server(&mut stopped))));
    if result.is_err() {
        fallback.events.warn(
            "the control server has failed: clients can no longer reach the run, but signals \
             still work",
        );
        runtime.block_on(fallback.run(&mut stopped));
    }
}

impl SignalsOnly {
    async fn run(self, stopped: &mut oneshot::Receiver<()>) {
        let mut signals = self.signals.and_then(|on_usr1| Signals::install(on_usr1, self.run).ok());
        loop {
            tokio::select! {
                request = Signals::next(&mut signals) => if let Some(signals) = &mut signals {
                    signals.handle(request, &self.commands, &self.events);
                },
                _ = &mut *stopped => return,
            }
        }
    }
}

impl ServerLoop {
    fn open(mut setup: ServerSetup) -> Result<(Self, Listening), ControlError> {
        let run = setup.subscription.directory.name();
        let signals = setup
            .signals
            .map(|on_usr1| Signals::install(on_usr1, run.clone()))
            .transpose()
            .map_err(ControlError::Start)?;
        let (socket, listening) = match listen(&setup.subscription.directory) {
            Ok((socket, problem)) => {
                let path = socket.path().to_path_buf();
                if let Some(problem) = problem {
                    setup
                        .events
                        .warn(format!("{problem}; the run listens on {} instead", path.display()));
                }
                (Some(socket), Ok(path))
            }
            Err(error) => (None, Err(error)),
        };
        let (request, snapshots) = mpsc::channel(16);
        let limits = ConnectionLimits::default();
        let places = Arc::new(Semaphore::new(limits.clients));
        let handle = ServerHandle {
            snapshots: request,
            commands: setup.commands.clone(),
            run,
            limits,
            places,
        };
        let server = Self {
            history: std::mem::take(&mut setup.subscription.history),
            setup,
            socket,
            signals,
            updates: broadcast::channel(BACKLOG).0,
            snapshots,
            handle,
            clients: JoinSet::new(),
            strangers: Strangers::default(),
            is_unreachable: false,
        };
        Ok((server, listening))
    }

    async fn run(mut self, stopped: &mut oneshot::Receiver<()>) {
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                record = self.setup.subscription.records.recv() => match record {
                    Some(record) => self.show(&record).await,
                    None => break,
                },
                stream = accept(self.socket.as_ref()) => self.welcome(stream),
                Some(request) = self.snapshots.recv() => self.reply(request),
                Some(_) = self.clients.join_next() => {}
                request = Signals::next(&mut self.signals) => self.handle_signal(request),
                _ = check.tick() => if self.socket.as_ref().is_some_and(|socket| !socket.is_in_place()) { self.bind_again() },
                _ = &mut *stopped => break,
            }
        }
        while let Ok(record) = self.setup.subscription.records.try_recv() {
            self.show(&record).await;
        }
        self.drain().await;
    }

    fn welcome(&mut self, stream: UnixStream) {
        let greeted = Greeted::default();
        let task = self.clients.spawn(serve(stream, self.handle.clone(), greeted.clone()));
        self.strangers.add(task, greeted, self.handle.limits.strangers);
    }

    /// Gives clients a moment to read what they were sent.
    async fn drain(self) {
        let Self { updates, mut clients, mut snapshots, handle, socket, history, setup, .. } = self;
        drop((updates, handle, socket, setup));
        let _ = timeout(FAREWELL, async {
            loop {
                tokio::select! {
                    joined = clients.join_next() => if joined.is_none() { break },
                    // A client that has just fallen behind still gets the end of the run.
                    Some(request) = snapshots.recv() => drop(request.send(SnapshotReply { snapshot: snapshot_frame(&history), updates: None })),
                }
            }
        })
        .await;
    }

    async fn show(&mut self, record: &Record) {
        // Sequence numbers are contiguous here, so a gap means that the mailbox was full; the files
        // have the missing records.
        if record.seq > self.history.last_seq + 1 {
            self.read_again().await;
        }
        if record.seq <= self.history.last_seq {
            return;
        }
        self.history.apply(record);
        if let Ok(bytes) = frame(&ServerMessage::Record(Box::new(record.clone()))) {
            // Having no clients is no failure.
            let _ = self.updates.send(Arc::new(Update::Record(bytes)));
        }
    }

    async fn read_again(&mut self) {
        let directory = self.setup.subscription.directory.clone();
        if let Ok(Ok((history, _))) = spawn_blocking(move || History::read(&directory)).await
            && history.last_seq > self.history.last_seq
        {
            self.history = history;
        }
        let _ = self.updates.send(Arc::new(Update::Resync));
    }

    fn reply(&self, request: oneshot::Sender<SnapshotReply>) {
        // Taken together, so that no record is lost between the snapshot and the records after it.
        let _ = request.send(SnapshotReply {
            snapshot: snapshot_frame(&self.history),
            updates: Some(self.updates.subscribe()),
        });
    }

    fn handle_signal(&mut self, request: SignalRequest) {
        if request == SignalRequest::Rebind {
            self.bind_again();
        }
        if let Some(signals) = &mut self.signals {
            signals.handle(request, &self.setup.commands, &self.setup.events);
        }
    }

    /// Warns once when the socket cannot be reopened, and reports once when it can.
    fn bind_again(&mut self) {
        let events = &self.setup.events;
        // The path belongs to the directory: another engine may use it by now, in a new directory
        // of the same name.
        if EngineInfo::read(&self.setup.subscription.directory)
            .is_none_or(|info| info.pid != std::process::id())
        {
            return;
        }
        let Some(socket) = &mut self.socket else {
            return events.warn("SIGUSR2 was ignored: this run has no socket to reopen");
        };
        match socket.bind_again() {
            Ok(()) => {
                events.warn("the engine's socket was reopened");
                self.is_unreachable = false;
            }
            Err(error) if !self.is_unreachable => {
                events.warn(format!(
                    "the engine's socket was removed and cannot be reopened: {error}; the run \
                     continues"
                ));
                self.is_unreachable = true;
            }
            Err(_) => {}
        }
    }
}

/// The next client; never resolves without a socket.
async fn accept(socket: Option<&BoundSocket>) -> UnixStream {
    let Some(socket) = socket else { return std::future::pending().await };
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of file descriptors: the waiting client would be reported again at once.
            Err(_) => sleep(BETWEEN_ACCEPTS).await,
        }
    }
}

/// The most detailed snapshot of the run that fits into a frame: curves get coarser, everything
/// else is kept.
fn snapshot_frame(history: &History) -> Result<Vec<u8>, FrameError> {
    let mut message = ServerMessage::Snapshot(Box::new(history.thinned(POINTS)));
    loop {
        let framed = frame(&message);
        let ServerMessage::Snapshot(history) = &mut message else { return framed };
        let can_shrink =
            history.activations.len() + history.evaluations.len() + history.samples.len() > 1;
        if !(can_shrink && matches!(framed, Err(FrameError::TooLarge { .. }))) {
            return framed;
        }
        keep_every_second(&mut history.activations);
        keep_every_second(&mut history.evaluations);
        history.samples.drain(..history.samples.len().div_ceil(2));
    }
}

/// The last one is always kept.
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
    use crate::record::{Activations, LayerActivation, RunEvent};
    use crate::steer::command_channel;

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
    fn a_server_that_panics_leaves_a_run_that_hears_signals() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (commands, mut inbox) = command_channel();
        let (sender, events) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let fallback = SignalsOnly {
            commands,
            events: EventSender::new(sender),
            signals: None,
            run: "books".into(),
        };
        let thread = thread::spawn(move || {
            supervise(&runtime, stopped, fallback, async |_: &mut oneshot::Receiver<()>| {
                panic!("a broken server")
            });
        });
        let RunEvent::Warning(warning) = events.recv().unwrap() else { panic!("not a warning") };
        assert!(warning.message.contains("signals still work"), "{}", warning.message);
        assert!(inbox.wait(Duration::from_millis(1)).is_none());
        assert!(!inbox.is_abandoned(), "nobody listens to signals");
        stop.send(()).unwrap();
        thread.join().unwrap();
        assert!(inbox.wait(Duration::ZERO).is_none() && inbox.is_abandoned());
    }

    #[test]
    fn a_history_too_large_for_a_frame_gets_coarser_instead_of_unreachable() {
        let layers = vec![LayerActivation { rate: 12.345_678_9, mean_abs: 0.123_456_789 }; 1000];
        let of_step = |step| Activations {
            step,
            stage: 0,
            patch_size: crate::config::PatchSize::ONE,
            tokens: step,
            threshold: 0.5,
            layers: layers.clone(),
        };
        let history =
            History { activations: (1..=1000).map(of_step).collect(), ..History::default() };
        assert!(matches!(
            frame(&ServerMessage::Snapshot(Box::new(history.clone()))),
            Err(FrameError::TooLarge { .. })
        ));
        let bytes = snapshot_frame(&history).unwrap();
        let ServerMessage::Snapshot(read) = serde_json::from_slice(&bytes[4..]).unwrap() else {
            panic!("not a snapshot")
        };
        assert_eq!(read.activations.last().unwrap().step, 1000);
        assert!(read.activations.len() > 100);
    }
}
