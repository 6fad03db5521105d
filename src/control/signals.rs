//! Signals as commands: what a scheduler, a terminal or a person with `kill` can say to an engine.

use std::future;
use std::io;

use rustix::process::Signal as SystemSignal;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::OnUsr1;
use crate::run::{CommandEnvelope, CommandSender, EventSender, RunCommand, RunEvent, Warning};

/// Exit code after a third signal, when there is no time for anything.
const ABORTED: i32 = 130;

/// The signals that an engine listens to, and what it makes of them.
#[derive(Debug)]
pub(crate) struct Signals {
    hup: Signal,
    int: Signal,
    term: Signal,
    usr1: Signal,
    usr2: Signal,
    tstp: Signal,
    on_usr1: OnUsr1,
    /// How often the run was asked to end.
    num_ends: u32,
    num_heard: u32,
}

/// A signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The terminal is gone, or wants the process stopped; a run goes on.
    Ignored(&'static str),
    /// SIGINT or SIGTERM.
    End(&'static str),
    /// SIGUSR1.
    Save,
    /// SIGUSR2.
    Rebind,
}

impl Signals {
    /// Takes the signals over from the system, from now until the process ends.
    pub(crate) fn install(on_usr1: OnUsr1) -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            usr1: signal(SignalKind::user_defined1())?,
            usr2: signal(SignalKind::user_defined2())?,
            tstp: signal(SignalKind::from_raw(SystemSignal::TSTP.as_raw()))?,
            on_usr1,
            num_ends: 0,
            num_heard: 0,
        })
    }

    /// The next signal; never, if signals were left alone.
    pub(crate) async fn next(signals: &mut Option<Self>) -> Heard {
        let Some(signals) = signals else { return future::pending().await };
        tokio::select! {
            _ = signals.hup.recv() => Heard::Ignored("SIGHUP was ignored: the run goes on without its terminal"),
            _ = signals.tstp.recv() => Heard::Ignored("SIGTSTP (Ctrl-Z) was ignored: pause the run with patchtui ctl RUN pause"),
            _ = signals.int.recv() => Heard::End("SIGINT"),
            _ = signals.term.recv() => Heard::End("SIGTERM"),
            _ = signals.usr1.recv() => Heard::Save,
            _ = signals.usr2.recv() => Heard::Rebind,
        }
    }

    /// Does what `heard` asks of the run: first end with a checkpoint, then without one, then at once.
    pub(crate) fn obey(&mut self, heard: Heard, commands: &CommandSender, events: &EventSender) {
        let (command, from) = match heard {
            Heard::Rebind => return,
            Heard::Ignored(message) => return events.send(RunEvent::Warning(Warning { message: message.into() })),
            Heard::Save if self.on_usr1 == OnUsr1::Continue => (RunCommand::Checkpoint, "SIGUSR1"),
            Heard::Save => (RunCommand::Stop, "SIGUSR1"),
            Heard::End(name) => {
                self.num_ends += 1;
                match self.num_ends {
                    1 => (RunCommand::Stop, name),
                    2 => (RunCommand::Kill, name),
                    _ => std::process::exit(ABORTED),
                }
            }
        };
        self.num_heard += 1;
        commands.send(CommandEnvelope { id: format!("signal-{}", self.num_heard), command, from: from.into() });
    }
}
