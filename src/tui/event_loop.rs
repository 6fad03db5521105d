//! The loop of the client: waits for signals, keys and records in this order, and draws when something changed.
//!
//! A frame is drawn only when the one before is written: a slow line lowers the frame rate, it does not queue frames. Keys are
//! drawn at once, records a few times a second.

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::layout::Size;
use rustix::io::Errno;
use rustix::process::Signal as Name;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use crate::control::{EngineLink, Feed};
use crate::run::RunEnd;
use crate::tui::app::Link;
use crate::tui::terminal::{ENTER, FrameWriter, InputThread, LEAVE, ScreenBackend, TerminalGuard, Tty, release, retake, stop_self};
use crate::tui::{App, Effect, Look, Msg, view};

/// Records that are folded in before keys are looked at again.
const BATCH: usize = 256;
/// How long leaving waits for a terminal that takes no bytes.
const PATIENCE: Duration = Duration::from_millis(300);

/// How the client is shown.
#[derive(Debug, Clone)]
pub struct TuiOptions {
    /// What the run is called before it has said so.
    pub name: String,
    /// Colours and glyphs.
    pub look: Look,
    /// The least time between two frames that only show new records.
    pub frame_interval: Duration,
}

/// Why the client left.
#[derive(Debug, Clone, PartialEq)]
pub enum TuiExit {
    /// The user left, or the terminal's session ended; the run goes on.
    Detached,
    /// The user left after the end of the run.
    RunEnded(Box<RunEnd>),
    /// The user left after the engine's process had ended without saying why.
    EngineGone,
}

/// What the process is told from outside.
enum Sent {
    HangUp,
    Leave,
    Suspend,
    Continued,
    Resized,
}

/// The signals that the client hears.
struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
    suspend: Signal,
    continued: Signal,
    resized: Signal,
}

/// The running client.
struct Client<S: Fn() -> io::Result<Size>> {
    app: App,
    link: EngineLink,
    terminal: Terminal<ScreenBackend<S>>,
    writer: FrameWriter,
    started: Instant,
    frame_interval: Duration,
    last_draw: Instant,
    draw_at: Option<Instant>,
    is_suspended: bool,
}

impl TuiOptions {
    /// The usual look for this environment, at most 10 frames a second.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, look: Look::from_env(), frame_interval: Duration::from_millis(100) }
    }
}

/// Shows the run behind `link` until the user leaves; the terminal is then as it was before.
///
/// Ends the process with code 0 when the terminal hangs up: there is nobody left to tell.
///
/// # Errors
/// When standard input or output is no terminal, or when it cannot be used any more.
pub async fn run(link: EngineLink, options: TuiOptions) -> io::Result<TuiExit> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "standard input and output must be a terminal"));
    }
    // Colours are left out by the theme: crossterm's own way of obeying NO_COLOR wipes bold and dim as well.
    crossterm::style::force_color_output(true);
    let mut signals = Signals::listen()?;
    let mut writer = FrameWriter::start(Tty)?;
    let _guard = TerminalGuard::hold()?;
    let mut input = InputThread::start()?;
    writer.send(ENTER.to_vec());
    let now = Instant::now();
    let mut client = Client {
        app: App::new(options.name, options.look),
        link,
        terminal: Terminal::new(ScreenBackend::new(terminal_size))?,
        writer,
        started: now,
        frame_interval: options.frame_interval,
        last_draw: now,
        draw_at: Some(now),
        is_suspended: false,
    };
    let result = client.run(&mut signals, &mut input).await;
    client.leave().await;
    match result {
        Err(error) if !is_gone(&error) => Err(error),
        Ok(()) | Err(_) => Ok(client.exit()),
    }
}

impl<S: Fn() -> io::Result<Size>> Client<S> {
    async fn run(&mut self, signals: &mut Signals, input: &mut InputThread) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut is_fed = true;
        loop {
            let now = Instant::now();
            let wake = self.app.next_wake().map(|wake| self.started + wake);
            let effects = tokio::select! {
                biased;
                sent = signals.next() => match sent {
                    Sent::HangUp | Sent::Leave => return Ok(()),
                    Sent::Suspend => vec![Effect::Suspend],
                    Sent::Continued => self.resume()?,
                    Sent::Resized => self.on(Msg::Resized, Duration::ZERO),
                },
                key = input.keys.recv() => {
                    let key = key.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
                    self.on(Msg::Key(key), Duration::ZERO)
                },
                result = self.writer.written(), if !self.writer.is_idle() => {
                    result?;
                    Vec::new()
                },
                heard = self.link.feed.recv_many(&mut batch, BATCH), if is_fed => {
                    is_fed = heard > 0;
                    self.on_feed(&mut batch)
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => self.on(Msg::Clock(self.started.elapsed()), Duration::ZERO),
                () = sleep_until(self.draw_at.unwrap_or(now)), if self.draw_at.is_some() && self.writer.is_idle() && !self.is_suspended => {
                    self.draw()?;
                    Vec::new()
                },
            };
            for effect in effects {
                match effect {
                    // A closed channel means that the link has ended, which the feed says.
                    Effect::Send(command) => drop(self.link.commands.send(command)),
                    Effect::Detach => return Ok(()),
                    Effect::Suspend => self.suspend().await?,
                    Effect::Redraw => self.redraw()?,
                }
            }
        }
    }

    /// Changes the state by `msg`, and draws after `wait` at the latest.
    fn on(&mut self, msg: Msg, wait: Duration) -> Vec<Effect> {
        self.app.update(Msg::Clock(self.started.elapsed()));
        let effects = self.app.update(msg);
        let at = Instant::now().max(self.last_draw + wait);
        self.draw_at = Some(self.draw_at.map_or(at, |planned| planned.min(at)));
        effects
    }

    fn on_feed(&mut self, batch: &mut Vec<Feed>) -> Vec<Effect> {
        let wait = self.frame_interval;
        batch.drain(..).flat_map(|feed| self.on(Msg::Feed(feed), wait)).collect()
    }

    fn draw(&mut self) -> io::Result<()> {
        let app = &self.app;
        self.terminal.draw(|frame| view(app, frame.area(), frame.buffer_mut()))?;
        if let Some(frame) = self.terminal.backend_mut().take_frame() {
            self.writer.send(frame);
        }
        self.draw_at = None;
        self.last_draw = Instant::now();
        Ok(())
    }

    fn redraw(&mut self) -> io::Result<()> {
        self.terminal.clear()?;
        self.draw_at = Some(Instant::now());
        Ok(())
    }

    /// Gives the terminal back and stops this process. The signal may act after the call, so only SIGCONT ends the suspension.
    async fn suspend(&mut self) -> io::Result<()> {
        self.leave().await;
        self.is_suspended = true;
        stop_self()
    }

    fn resume(&mut self) -> io::Result<Vec<Effect>> {
        self.is_suspended = false;
        retake()?;
        self.writer.send(ENTER.to_vec());
        self.redraw()?;
        Ok(Vec::new())
    }

    /// Gives the terminal back; one that takes no bytes is not waited for.
    async fn leave(&mut self) {
        self.writer.send(LEAVE.to_vec());
        let _ = timeout(PATIENCE, self.writer.drained()).await;
        release();
    }

    fn exit(self) -> TuiExit {
        match (self.app.history.end, self.app.link) {
            (Some(end), _) => TuiExit::RunEnded(Box::new(end)),
            (None, Link::Ended) => TuiExit::EngineGone,
            (None, Link::Waiting | Link::Live | Link::Lost { .. }) => TuiExit::Detached,
        }
    }
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let raw = |name: Name| signal(SignalKind::from_raw(name.as_raw()));
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            suspend: raw(Name::TSTP)?,
            continued: raw(Name::CONT)?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// The next signal; cancel-safe.
    async fn next(&mut self) -> Sent {
        tokio::select! {
            biased;
            _ = self.hang_up.recv() => Sent::HangUp,
            _ = self.terminate.recv() => Sent::Leave,
            _ = self.interrupt.recv() => Sent::Leave,
            _ = self.suspend.recv() => Sent::Suspend,
            _ = self.continued.recv() => Sent::Continued,
            _ = self.resized.recv() => Sent::Resized,
        }
    }
}

/// Whether `error` says that the terminal was hung up, which is a way of leaving.
fn is_gone(error: &io::Error) -> bool {
    const EIO: i32 = Errno::IO.raw_os_error();
    error.raw_os_error() == Some(EIO) || error.kind() == io::ErrorKind::BrokenPipe
}

/// Columns and lines of standard output, by one system call.
fn terminal_size() -> io::Result<Size> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout())?;
    Ok(Size { width: size.ws_col, height: size.ws_row })
}
