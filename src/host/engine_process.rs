//! The engine's process: lock, files, control server and foreground output around one trainer
//! thread. The same in the background and in the foreground.
//!
//! The trainer is a closure that receives commands, sends events, and returns how it ended. Start
//! at [`run_engine`].

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::config::OnUsr1;
use crate::control::{ControlError, PROTOCOL, Server, ServerSetup};
use crate::record::{
    EngineInfo, EventSender, History, LockError, LockFileState, Outcome, Record, Reporter,
    RunCommand, RunDirectory, RunEnd, RunEvent, RunIndex, RunLock, Store, StoreError, Trouble,
};
use crate::steer::{COMPUTE_STACK, CommandEnvelope, CommandSender, Inbox, command_channel};
use crate::text::format::shell_word;

/// Maximum number of records that a slow terminal may lag behind.
const FACE_BACKLOG: usize = 65_536;
/// Time limit for a slow terminal to show the end.
const FACE_GOODBYE: Duration = Duration::from_secs(5);

/// How often the run directory is checked.
const STILL_THERE: Duration = Duration::from_millis(500);

/// Prints every record of a run in the foreground.
pub type Face = Box<dyn FnMut(Record) + Send>;

/// Everything that the engine's process needs except its trainer.
pub struct EngineSetup {
    /// Directory of the run.
    pub directory: RunDirectory,
    /// Its lock, held until the process ends.
    pub lock: RunLock,
    /// What SIGUSR1 does.
    pub on_usr1: OnUsr1,
    /// Output in the foreground; without it the engine runs in the background, in its own session.
    pub face: Option<Face>,
    /// What the user should know about the start, for the log of the run.
    pub warnings: Vec<String>,
    /// Index that the run is added to.
    pub index: RunIndex,
}

/// Why the engine did not start; nothing was trained.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another engine holds the run's lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The run's files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control server could not be started.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// `engine.json` cannot be written.
    #[error("cannot write engine.json: {0}")]
    EngineInfo(io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl Advice for StartError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Lock(error) => error.hint(audience),
            Self::Store(error) => error.hint(audience),
            Self::Control(error) => error.hint(audience),
            Self::EngineInfo(_) => {
                "check that the run directory is writable and that its disk has space".into()
            }
            Self::Thread(_) => "check the limits of the process with: ulimit -a".into(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Lock(error) => error.exit_code(),
            Self::Control(ControlError::NoSocket { .. }) => USAGE,
            Self::Store(_) | Self::Control(_) | Self::EngineInfo(_) | Self::Thread(_) => FAILED,
        }
    }
}

/// Runs `train` as the engine of a run until it ends, and returns the exit code of the process.
///
/// `train` returns how the run ended; the final [`RunEvent::RunFinished`] is sent here, also after
/// a panic.
///
/// # Errors
/// When the run's files, its socket or a thread cannot be created; nothing was trained then.
pub fn run_engine(
    setup: EngineSetup,
    train: impl FnOnce(Inbox, EventSender) -> RunEnd + Send + 'static,
) -> Result<u8, StartError> {
    let is_background = setup.face.is_none();
    if is_background {
        // Fails only if this process already leads a group, and then no terminal's signals reach it
        // either.
        let _ = rustix::process::setsid();
    }
    let directory = &setup.directory;
    let mut store = Store::open(directory)?;
    let face = setup.face.map(FaceThread::start).transpose()?;
    if let Some(face) = &face {
        store.report_to(face.reporter());
    }
    let subscription = store.subscribe();
    let (events, store) = store.start()?;
    let (commands, inbox) = command_channel();
    let mut server = Server::start(ServerSetup {
        subscription,
        commands: commands.clone(),
        events: events.clone(),
        signals: Some(setup.on_usr1),
    })?;
    if let Some(problem) = server.take_problem() {
        if is_background {
            // Nothing could display the error.
            return Err(problem.into());
        }
        let pid = std::process::id();
        events.warn(format!(
            "{problem}; this run accepts signals only: kill -TERM {pid} stops it with a \
             checkpoint, kill -USR1 {pid} saves one"
        ));
    }
    for message in setup.warnings {
        events.warn(message);
    }
    if let Err(error) = setup.index.add(directory) {
        events.warn(format!(
            "the run could not be added to the list of runs: {error}; from other folders, attach \
             to it by its path"
        ));
    }
    // From here on clients find the engine; everything that must come before is done.
    EngineInfo::of_this_process(server.socket().map(Path::to_path_buf), PROTOCOL)
        .write(directory)
        .map_err(StartError::EngineInfo)?;
    let mut lock = setup.lock;
    let watch = Watch {
        directory,
        lock: &mut lock,
        commands: &commands,
        events: events.clone(),
        lost: None,
        num_missing: 0,
    };
    let end = train_on_thread(inbox, events.clone(), watch, train)?;
    let exit_code = end.outcome.exit_code();
    events.send(RunEvent::RunFinished(end));
    if let Err(problem) = store.join() {
        tracing::error!("{problem}");
    }
    // Clients read the end of the run before the lock shows that the engine has ended.
    drop(server);
    if let Some(face) = face {
        face.finish();
    }
    Ok(exit_code)
}

/// What is checked while the trainer works.
struct Watch<'a> {
    directory: &'a RunDirectory,
    lock: &'a mut RunLock,
    commands: &'a CommandSender,
    events: EventSender,
    /// Why the run must end although its trainer could continue.
    lost: Option<Trouble>,
    /// How often in a row the directory was missing.
    num_missing: u32,
}

fn train_on_thread(
    inbox: Inbox,
    events: EventSender,
    mut watch: Watch<'_>,
    train: impl FnOnce(Inbox, EventSender) -> RunEnd + Send + 'static,
) -> Result<RunEnd, StartError> {
    let (report, ended) = mpsc::channel();
    let trainer = thread::Builder::new().name("trainer".into()).stack_size(COMPUTE_STACK);
    trainer
        .spawn(move || {
            // Nothing that the closure holds is used after a panic.
            let _ = report.send(catch_unwind(AssertUnwindSafe(|| train(inbox, events))));
        })
        .map_err(StartError::Thread)?;
    let end = loop {
        match ended.recv_timeout(STILL_THERE) {
            Ok(end) => break end,
            Err(RecvTimeoutError::Disconnected) => {
                break Err(Box::new("its thread ended without a result") as Box<dyn Any + Send>);
            }
            Err(RecvTimeoutError::Timeout) => watch.look(),
        }
    };
    let end = end.unwrap_or_else(|panic| failure(watch.directory, &*panic));
    if watch.lock.place(watch.directory) == LockFileState::Gone {
        watch.lost.get_or_insert_with(|| directory_gone(watch.directory));
    }
    // Whatever the run has written cannot be found any more.
    Ok(match watch.lost {
        Some(trouble) => RunEnd { outcome: Outcome::Failed, error: Some(trouble), ..end },
        None => end,
    })
}

impl Watch<'_> {
    /// Ends the run if it has lost its directory, and restores a removed lock file.
    fn look(&mut self) {
        let place = self.lock.place(self.directory);
        self.num_missing = if place == LockFileState::Gone { self.num_missing + 1 } else { 0 };
        if self.lost.is_some() {
            return;
        }
        match place {
            LockFileState::Held => {}
            LockFileState::Removed => match self.lock.retake(self.directory) {
                Ok(()) => self
                    .events
                    .warn("the run's lock file was removed during the run; it was recreated"),
                Err(error) => self.give_up(Trouble {
                    message: format!("the run's lock file was removed, and {error}"),
                    hint: Some(error.hint(Audience::Command)),
                }),
            },
            // A single failure may be a file system that is being remounted.
            LockFileState::Gone if self.num_missing < 2 => {}
            LockFileState::Gone => self.give_up(directory_gone(self.directory)),
        }
    }

    /// There is no directory to save to, or another engine saves there.
    fn give_up(&mut self, trouble: Trouble) {
        self.lost = Some(trouble);
        let from = "the check of the run directory".into();
        self.commands.send(CommandEnvelope {
            id: "directory-gone".into(),
            command: RunCommand::Kill,
            from,
        });
    }
}

fn directory_gone(directory: &RunDirectory) -> Trouble {
    Trouble {
        message: format!(
            "{} was deleted, moved or replaced during the run",
            directory.path().display()
        ),
        hint: Some(
            "if it was moved, resume it there: patchtui resume DIRECTORY; if it was deleted, \
             start the run again"
                .into(),
        ),
    }
}

/// The end of a run whose trainer panicked; its progress is in the files.
fn failure(directory: &RunDirectory, panic: &(dyn Any + Send)) -> RunEnd {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    let history = History::read(directory).map(|(history, _)| history).unwrap_or_default();
    let last = history.last_step.as_ref();
    RunEnd {
        outcome: Outcome::Failed,
        step: history.step(),
        tokens: last.map_or(0, |step| step.tokens),
        active_seconds: last.map_or(0.0, |step| step.active_seconds),
        token_loss: history.evaluations.last().map(|evaluation| evaluation.token_loss),
        whole: history.whole_loss(),
        error: Some(Trouble {
            message: format!("the trainer panicked: {}", text.unwrap_or("unknown reason")),
            hint: Some(format!(
                "this is a bug in patchtui: please report it with the run's engine.log; resume \
                 from the last checkpoint with: patchtui resume {}",
                shell_word(&directory.name())
            )),
        }),
    }
}

/// Foreground output on its own thread: a blocked terminal (Ctrl-S, a pager) must not block the
/// files.
struct FaceThread {
    channel: mpsc::SyncSender<Record>,
    done: Receiver<()>,
    missed: Arc<AtomicU64>,
}

impl FaceThread {
    fn start(mut show: Face) -> Result<Self, StartError> {
        let (channel, records) = mpsc::sync_channel(FACE_BACKLOG);
        let (report, done) = mpsc::channel();
        let missed = Arc::new(AtomicU64::new(0));
        let thread = thread::Builder::new().name("face".into()).spawn(move || {
            records.into_iter().for_each(&mut show);
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
            tracing::warn!(
                "lines not shown because the terminal was blocked for too long: {missed}; the \
                 run's files contain them"
            );
        }
    }
}
