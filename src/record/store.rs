//! The store thread: numbers the events of a run, appends them to its files, then publishes them to
//! listeners.
//!
//! Files come first and lose nothing; a slow listener may miss records, which the files have. The
//! trainer waits for the files only before a checkpoint becomes valid. Start at [`Store::open`],
//! then [`Store::start`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::mpsc as mailbox;

use crate::advice::{Advice, Audience};
use crate::disk::Disk;
use crate::record::event::StoreMessage;
use crate::record::{
    DiskChange, EventSender, History, LineFile, LogError, Record, RunDirectory, RunEvent, RunLog,
    Warning, lines,
};

/// Maximum number of records that a listener may lag behind before it misses some.
const MAILBOX: usize = 8192;
/// How long lines wait for a full disk when nothing else happens.
const RETRY: Duration = Duration::from_secs(2);

/// The files of a run, ready for another attempt.
pub struct Store {
    directory: RunDirectory,
    log: RunLog,
    history: History,
    last_seq: u64,
    attempt: u32,
    notes: Vec<String>,
    listeners: Vec<mailbox::Sender<Arc<Record>>>,
    reporters: Vec<Reporter>,
}

/// Called on the store thread with every record; it must not block for long.
pub type Reporter = Box<dyn FnMut(&Record) + Send>;

/// A listener: the history before this attempt, and new records.
#[derive(Debug)]
pub struct Subscription {
    /// Directory of the run, to read missed records from.
    pub directory: RunDirectory,
    /// Everything before this attempt, in the state in which this attempt begins.
    pub history: History,
    /// Every record from now on, unless the mailbox was full: a gap in `seq` means that records
    /// are only in the files.
    pub records: mailbox::Receiver<Arc<Record>>,
}

/// The running store thread.
#[derive(Debug)]
pub struct StoreHandle {
    thread: JoinHandle<()>,
    attempt: u32,
}

/// Why the files of a run cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// They cannot be read.
    #[error("cannot read the files of the run {name:?}: {source}")]
    Read {
        /// Name of the run.
        name: String,
        /// Operating system error.
        source: io::Error,
    },
    /// They cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The thread could not be started.
    #[error("cannot start the store thread: {0}")]
    Thread(io::Error),
}

impl Advice for StoreError {
    fn hint(&self, audience: Audience<'_>) -> String {
        match self {
            Self::Read { .. } => "check that the run directory is readable".into(),
            Self::Log(error) => error.hint(audience),
            Self::Thread(_) => "check the limits of the process with: ulimit -u".into(),
        }
    }
}

impl Store {
    /// Reads the files of earlier attempts in `directory` and opens them for the next one.
    pub fn open(directory: &RunDirectory) -> Result<Self, StoreError> {
        Self::open_on(directory, Disk::default())
    }

    /// The same on a file system that can fail.
    pub fn open_on(directory: &RunDirectory, disk: Disk) -> Result<Self, StoreError> {
        let (log, torn) = RunLog::open_on(directory, disk)?;
        let (history, report) = History::read(directory)
            .map_err(|source| StoreError::Read { name: directory.name(), source })?;
        let name_of = |path: &std::path::Path| {
            path.file_name().unwrap_or_default().to_string_lossy().into_owned()
        };
        let mut notes: Vec<_> = torn
            .iter()
            .map(|path| format!("an incomplete last line of {} was removed", name_of(path)))
            .collect();
        notes.extend(report.complaint());
        Ok(Self {
            directory: directory.clone(),
            log,
            history,
            last_seq: report.last_seq,
            attempt: report.attempt + 1,
            notes,
            listeners: Vec::new(),
            reporters: Vec::new(),
        })
    }

    /// Everything before this attempt.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Subscribes to every record from now on.
    pub fn subscribe(&mut self) -> Subscription {
        let (sender, records) = mailbox::channel(MAILBOX);
        self.listeners.push(sender);
        let mut history = self.history.clone();
        // An attempt without events has not ended, however the previous one did.
        history.begin_attempt(self.attempt);
        Subscription { directory: self.directory.clone(), history, records }
    }

    /// Calls `reporter` on the store thread with every record.
    pub fn report_to(&mut self, reporter: Reporter) {
        self.reporters.push(reporter);
    }

    /// Starts the thread, which ends after [`RunEvent::RunFinished`] or when all senders are gone.
    pub fn start(mut self) -> Result<(EventSender, StoreHandle), StoreError> {
        let (sender, events) = mpsc::channel();
        let attempt = self.attempt;
        // Only the subscriptions need it from here on, and it may contain a million steps.
        self.history = History::default();
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || self.run(&events))
            .map_err(StoreError::Thread)?;
        Ok((EventSender::to_store(sender), StoreHandle { thread, attempt }))
    }

    fn run(mut self, events: &Receiver<StoreMessage>) {
        for note in std::mem::take(&mut self.notes) {
            self.take(RunEvent::Warning(Warning { message: note }));
        }
        loop {
            match events.recv_timeout(RETRY) {
                Ok(StoreMessage::Event(event)) => {
                    let is_last = matches!(*event, RunEvent::RunFinished(_));
                    self.take(*event);
                    if is_last {
                        break;
                    }
                }
                Ok(StoreMessage::Sync(reply)) => {
                    self.flush();
                    let _ = reply.send(self.log.sync().map(|()| self.log.hashes()));
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.log.flush();
        let _ = self.log.sync();
    }

    /// Tries to write the waiting lines.
    fn flush(&mut self) {
        if let Some(change) = self.log.flush() {
            self.take(disk_warning(&change));
        }
    }

    /// Numbers an event, writes it, publishes it; a disk failure follows as a warning.
    fn take(&mut self, event: RunEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.last_seq += 1;
            let record = Record {
                seq: self.last_seq,
                at: format!("{:.3}", Timestamp::now()),
                attempt: self.attempt,
                event,
            };
            if let Some(file) = LineFile::of(&record.event) {
                match lines::encode(&record) {
                    Ok(line) => {
                        events.extend(self.log.append(file, line).as_ref().map(disk_warning));
                    }
                    Err(error) => events.push_back(RunEvent::Warning(Warning {
                        message: format!("an event could not be written: {error}"),
                    })),
                }
            }
            if matches!(record.event, RunEvent::CheckpointSaved(_)) {
                // A failure is reported with the next line.
                let _ = self.log.sync();
            }
            self.publish(record);
        }
    }

    fn publish(&mut self, record: Record) {
        for reporter in &mut self.reporters {
            reporter(&record);
        }
        let record = Arc::new(record);
        for listener in &self.listeners {
            // A listener with a full mailbox misses the record and notices it by the next number.
            let _ = listener.try_send(record.clone());
        }
    }
}

impl StoreHandle {
    /// Number of this attempt, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Waits until everything is written and shown.
    ///
    /// # Errors
    /// When the thread panicked: a bug in patchtui; the files may then lack the newest records.
    pub fn join(self) -> Result<(), String> {
        self.thread.join().map_err(|_| {
            "the store thread panicked; the run's files may lack their newest lines".into()
        })
    }
}

fn disk_warning(change: &DiskChange) -> RunEvent {
    let message = match change {
        DiskChange::Failing { path, reason } => {
            format!(
                "cannot write {}: {reason}; the run continues and keeps its lines in memory until \
                 the disk accepts writes again",
                path.display()
            )
        }
        DiskChange::Recovered { waited, dropped: 0 } => {
            format!("the disk accepts writes again: all waiting lines ({waited}) were written")
        }
        DiskChange::Recovered { waited, dropped } => {
            format!(
                "the disk accepts writes again: waiting lines: {waited} were written, {dropped} \
                 older ones were dropped"
            )
        }
    };
    RunEvent::Warning(Warning { message })
}
