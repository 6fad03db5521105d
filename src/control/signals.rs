//! Signals as commands, from a scheduler, a terminal or a person with `kill`.

use std::future;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal as SystemSignal;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::OnUsr1;
use crate::record::{EventSender, RunCommand};
use crate::steer::{CommandEnvelope, CommandSender};

/// Exit code after a third signal, when nothing can be saved.
const ABORTED: i32 = 130;

/// The signals that an engine handles.
#[derive(Debug)]
pub(crate) struct Signals {
    hup: Signal,
    int: Signal,
    term: Signal,
    usr1: Signal,
    usr2: Signal,
    tstp: Signal,
    /// Sent when a file may not grow further; the write then fails with an error, which is
    /// reported like a full disk.
    _xfsz: Signal,
    on_usr1: OnUsr1,
    /// Name of the run, for messages.
    run: String,
    /// How often the run was asked to end.
    num_ends: u32,
}

/// A signal by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    /// SIGHUP: the terminal was closed; the run continues.
    Hangup,
    /// SIGTSTP: Ctrl-Z was pressed; the run continues.
    Suspend,
    /// SIGINT or SIGTERM.
    End(&'static str),
    /// SIGUSR1.
    Save,
    /// SIGUSR2.
    Rebind,
}

impl Signals {
    /// Takes over the signals until the process ends.
    pub(crate) fn install(on_usr1: OnUsr1, run: String) -> io::Result<Self> {
        let system = |of: SystemSignal| signal(SignalKind::from_raw(of.as_raw()));
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            tstp: system(SystemSignal::TSTP)?,
            _xfsz: system(SystemSignal::XFSZ)?,
            on_usr1,
            run,
            num_ends: 0,
        })
    }

    /// The next signal; never resolves if signals were not taken over.
    pub(crate) async fn next(signals: &mut Option<Self>) -> SignalRequest {
        let Some(signals) = signals else { return future::pending().await };
        tokio::select! {
            _ = signals.hup.recv() => SignalRequest::Hangup,
            _ = signals.tstp.recv() => SignalRequest::Suspend,
            _ = signals.int.recv() => SignalRequest::End("SIGINT"),
            _ = signals.term.recv() => SignalRequest::End("SIGTERM"),
            _ = signals.usr1.recv() => SignalRequest::Save,
            _ = signals.usr2.recv() => SignalRequest::Rebind,
        }
    }

    /// Executes `request`. The first request to end saves a checkpoint, the second does not, the
    /// third exits at once.
    pub(crate) fn handle(
        &mut self,
        request: SignalRequest,
        commands: &CommandSender,
        events: &EventSender,
    ) {
        // Numbered over the whole process, so that no signal is taken for a retry of an earlier
        // one.
        static NUM_COMMANDS: AtomicU32 = AtomicU32::new(0);
        let (command, from) = match request {
            SignalRequest::Rebind => return,
            SignalRequest::Hangup => {
                return events.warn("SIGHUP was ignored: the run continues without its terminal");
            }
            SignalRequest::Suspend => {
                return events.warn(format!(
                    "SIGTSTP (Ctrl-Z) was ignored; to pause the run: patchtui ctl {} pause",
                    self.run
                ));
            }
            SignalRequest::Save if self.on_usr1 == OnUsr1::Continue => {
                (RunCommand::Checkpoint, "SIGUSR1")
            }
            SignalRequest::Save => (RunCommand::Stop, "SIGUSR1"),
            SignalRequest::End(name) => {
                self.num_ends += 1;
                match self.num_ends {
                    1 => (RunCommand::Stop, name),
                    2 => (RunCommand::Kill, name),
                    _ => std::process::exit(ABORTED),
                }
            }
        };
        let id = format!("signal-{}", NUM_COMMANDS.fetch_add(1, Ordering::Relaxed) + 1);
        commands.send(CommandEnvelope { id, command, from: from.into() });
    }
}
