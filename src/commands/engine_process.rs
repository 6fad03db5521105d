//! The engine's process: lock, files, door, faces around one trainer thread. The same in the background and in the foreground.
//!
//! Knows nothing of training: the trainer is a closure that hears commands, says events, and returns how it ended. Start at
//! [`run_engine`].

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::config::OnUsr1;
use crate::control::{ControlError, PROTOCOL, Server, ServerSetup};
use crate::report::{Json, Plain, stdout};
use crate::run::{
    EngineInfo, EventSender, History, Inbox, LockError, Outcome, Record, Reporter, RunDirectory, RunEnd, RunEvent, RunIndex, RunLock, Store, StoreError,
    Trouble, Warning, command_channel,
};

/// Deep networks are built by recursion in places; the main thread of a test would have as much.
const TRAINER_STACK: usize = 64 * 1024 * 1024;
/// Records that a slow terminal may be behind.
const FACE_BACKLOG: usize = 65_536;
/// How long a slow terminal may take to show the end.
const FACE_GOODBYE: Duration = Duration::from_secs(5);

/// How the engine's process shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// In the background, in a session of its own.
    None,
    /// Lines for people on the standard output.
    Plain,
    /// JSON lines on the standard output.
    Json,
}

/// What the engine's process needs to know besides its trainer.
#[derive(Debug, Clone)]
pub struct EngineSetup {
    /// The run.
    pub directory: RunDirectory,
    /// What SIGUSR1 does.
    pub on_usr1: OnUsr1,
    /// How it shows itself.
    pub face: Face,
    /// Where the run is remembered.
    pub index: RunIndex,
}

/// Why the engine did not start; nothing was trained.
#[derive(Debug, Error)]
pub enum StartError {
    /// The run is taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody could watch or steer it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It cannot say who it is.
    #[error("cannot write engine.json: {0}")]
    Card(io::Error),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl StartError {
    /// What to type next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Lock(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Control(error) => error.hint(),
            Self::Card(_) => "check that the run directory is writable and that its disk has space".into(),
            Self::Thread(_) => "check the limits of the process with: ulimit -a".into(),
        }
    }
}

/// Runs `train` as the engine of a run until it ends, and returns the process's exit code.
///
/// `train` returns how the run ended; the closing [`RunEvent::RunFinished`] is sent here, also when it panics.
pub fn run_engine(setup: &EngineSetup, train: impl FnOnce(Inbox, EventSender) -> RunEnd + Send + 'static) -> Result<u8, StartError> {
    if setup.face == Face::None {
        // Fails only if this process leads a group already, and then no terminal's signals reach it either.
        let _ = rustix::process::setsid();
    }
    let directory = &setup.directory;
    let _lock = RunLock::acquire(directory)?;
    let mut store = Store::open(directory)?;
    let face = FaceThread::start(setup.face)?;
    store.report_to(face.reporter());
    let subscription = store.subscribe();
    let (events, store) = store.start()?;
    let (commands, inbox) = command_channel();
    let mut server = Server::start(ServerSetup { subscription, commands, events: events.clone(), signals: Some(setup.on_usr1) })?;
    if let Some(problem) = server.take_problem() {
        if setup.face == Face::None {
            // Nothing could show it.
            return Err(problem.into());
        }
        let pid = std::process::id();
        let message = format!("{problem}; this run listens to signals only: kill -TERM {pid} stops it with a checkpoint, kill -USR1 {pid} saves one");
        events.send(RunEvent::Warning(Warning { message }));
    }
    if let Err(error) = setup.index.add(directory) {
        let message = format!("the run could not be added to the list of runs: {error}; from other folders, attach to it by its path");
        events.send(RunEvent::Warning(Warning { message }));
    }
    // From here on clients find the engine, and all that was to be done before is done.
    EngineInfo::of_this_process(server.socket().map(std::path::Path::to_path_buf), PROTOCOL).write(directory).map_err(StartError::Card)?;
    let end = train_on_thread(inbox, events.clone(), train)?.unwrap_or_else(|panic| failure(directory, &*panic));
    let exit_code = end.outcome.exit_code();
    events.send(RunEvent::RunFinished(end));
    if let Err(problem) = store.join() {
        tracing::error!("{problem}");
    }
    // Clients read the end of the run before the lock tells them that nobody is here any more.
    drop(server);
    face.finish();
    Ok(exit_code)
}

type Panic = Box<dyn Any + Send>;

fn train_on_thread(
    inbox: Inbox,
    events: EventSender,
    train: impl FnOnce(Inbox, EventSender) -> RunEnd + Send + 'static,
) -> Result<Result<RunEnd, Panic>, StartError> {
    let trainer = thread::Builder::new().name("trainer".into()).stack_size(TRAINER_STACK);
    // Nothing that the closure holds is looked at after a panic.
    let thread = trainer.spawn(move || catch_unwind(AssertUnwindSafe(|| train(inbox, events)))).map_err(StartError::Thread)?;
    Ok(thread.join().unwrap_or_else(Err))
}

/// The end of a run whose trainer broke; what it had reached is in the files.
fn failure(directory: &RunDirectory, panic: &(dyn Any + Send)) -> RunEnd {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let history = History::read(directory).map(|(history, _)| history).unwrap_or_default();
    let last = history.last_step.as_ref();
    RunEnd {
        outcome: Outcome::Failed,
        step: history.step(),
        tokens: last.map_or(0, |step| step.tokens),
        active_seconds: last.map_or(0.0, |step| step.active_seconds),
        token_loss: history.evaluations.last().map(|evaluation| evaluation.token_loss),
        error: Some(Trouble {
            message: format!("the trainer broke: {}", text.unwrap_or("no reason was given")),
            hint: Some("this is a mistake of patchtui; go on from the last checkpoint with --resume and report the engine's log".into()),
        }),
    }
}

/// The face on a thread of its own: a terminal that is held (Ctrl-S, a pager) must not hold the files.
struct FaceThread {
    channel: mpsc::SyncSender<Record>,
    done: Receiver<()>,
    missed: Arc<AtomicU64>,
}

impl FaceThread {
    fn start(face: Face) -> Result<Self, StartError> {
        let (channel, records) = mpsc::sync_channel(FACE_BACKLOG);
        let (report, done) = mpsc::channel();
        let missed = Arc::new(AtomicU64::new(0));
        let show = show_on(face);
        let thread = thread::Builder::new().name("face".into()).spawn(move || {
            records.into_iter().for_each(show);
            let _ = report.send(());
        });
        thread.map_err(StartError::Thread)?;
        Ok(Self { channel, done, missed })
    }

    fn reporter(&self) -> Reporter {
        let (channel, missed) = (self.channel.clone(), self.missed.clone());
        Box::new(move |record| {
            if channel.try_send(record.clone()).is_err() {
                missed.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    fn finish(self) {
        drop(self.channel);
        let _ = self.done.recv_timeout(FACE_GOODBYE);
        let missed = self.missed.load(Ordering::Relaxed);
        if missed > 0 {
            tracing::warn!("{missed} lines were not shown, since the terminal took none for too long; the files of the run have them");
        }
    }
}

fn show_on(face: Face) -> Box<dyn FnMut(Record) + Send> {
    match face {
        Face::None => Box::new(|_| {}),
        Face::Plain => {
            let mut plain = Plain::new(stdout());
            Box::new(move |record| plain.show(&record))
        }
        Face::Json => {
            let mut json = Json::new(stdout());
            Box::new(move |record| json.show(&record))
        }
    }
}
