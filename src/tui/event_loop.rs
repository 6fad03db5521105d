//! The event loop of the client: handles signals, keys and records in this order, and draws when
//! something changed.
//!
//! A frame is drawn only when the previous one is written: a slow line lowers the frame rate
//! instead of queueing frames. Keys are drawn at once, records a few times a second.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::layout::Size;
use rustix::io::Errno;
use rustix::process::Signal as Name;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use crate::control::{EngineLink, Feed};
use crate::machine::terminal::{screen_problem, window_size};
use crate::record::{RunDirectory, RunEnd, RunSummary};
use crate::tui::app::App;
use crate::tui::home_screen::HomeScreen;
use crate::tui::links::Links;
use crate::tui::message::{Access, Effect, Msg, Refusal, RunId, RunList};
use crate::tui::run_screen::{LinkState, RunScreen};
use crate::tui::terminal::{
    ASK_BACKGROUND, ENTER, FrameWriter, Input, InputThread, LEAVE, ScreenBackend, TerminalGuard,
    Tty, has_shell, release, retake, stop,
};
use crate::tui::{Theme, view};

/// A description of a time zone is a few kilobytes long.
const MAX_ZONE_BYTES: u64 = 1 << 20;
/// Time limit for leaving a terminal that accepts no output.
const PATIENCE: Duration = Duration::from_millis(300);

/// Display settings of the client.
#[derive(Debug, Clone)]
pub struct TuiOptions {
    /// Colors and glyphs.
    pub theme: Theme,
    /// Whether to query the terminal's background color, without waiting for an answer.
    pub asks_background: bool,
    /// Time zone of the log.
    pub zone: TimeZone,
    /// Minimum time between two frames that only show new records.
    pub frame_interval: Duration,
}

/// First screen of the client.
#[derive(Debug)]
pub enum Opening {
    /// One run.
    Run {
        /// Name shown until the run has reported its own.
        name: String,
        /// Whether the run can be controlled or is only read.
        access: Access,
        /// Link to its engine or files.
        link: EngineLink,
    },
    /// The list of runs.
    Home(HomeActions),
}

/// Reads the list of runs, reusing known entries. Called outside the loop, since folders may be
/// slow.
pub type ListRuns = dyn Fn(&[RunSummary]) -> Vec<RunSummary> + Send + Sync;
/// Resumes a run. Called outside the loop, until its engine answers.
pub type ResumeRun = dyn Fn(&RunDirectory) -> Result<RunDirectory, Refusal> + Send + Sync;
/// Starts a configuration by name or path. Called outside the loop, until its engine answers.
pub type StartRun = dyn Fn(&str) -> Result<RunDirectory, Refusal> + Send + Sync;
/// Follows a run, inside the runtime.
pub type ListenToRun = dyn Fn(&RunDirectory, Access) -> EngineLink + Send + Sync;

/// Actions of the list of runs.
#[derive(Clone)]
pub struct HomeActions {
    /// Reads the runs.
    pub list: Arc<ListRuns>,
    /// Resumes a run.
    pub resume: Arc<ResumeRun>,
    /// Starts a configuration.
    pub start: Arc<StartRun>,
    /// Follows a run.
    pub listen: Arc<ListenToRun>,
}

/// Why the client left.
#[derive(Debug, Clone, PartialEq)]
pub enum TuiExit {
    /// The user quit the list of runs, or a run opened from it.
    Left,
    /// The user detached, or the terminal session ended; the run continues.
    Detached,
    /// The user quit after the end of the run.
    RunEnded(Box<RunEnd>),
    /// The user quit after the engine had ended without reporting why.
    EngineGone,
}

/// A signal to the client.
enum ReceivedSignal {
    HangUp,
    Leave,
    Suspend,
    Continued,
    Resized,
}

/// The signals that the client handles.
struct ClientSignals {
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
    links: Links,
    actions: Option<HomeActions>,
    /// Results of work outside the loop.
    results: (UnboundedSender<Msg>, UnboundedReceiver<Msg>),
    terminal: Terminal<ScreenBackend<S>>,
    writer: FrameWriter,
    started: Instant,
    frame_interval: Duration,
    last_draw: Instant,
    draw_at: Option<Instant>,
    is_suspended: bool,
}

impl fmt::Debug for HomeActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HomeActions")
    }
}

impl Default for TuiOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl TuiOptions {
    /// Theme and time zone from the environment, at most 10 frames a second.
    #[must_use]
    pub fn new() -> Self {
        let theme = Theme::from_env();
        // The Linux console does not support the query and would print it.
        let asks_background =
            theme.is_coloured && env::var("TERM").is_ok_and(|term| term != "linux");
        Self {
            theme,
            asks_background,
            zone: zone_of(env::var_os("TZ").as_deref()),
            frame_interval: Duration::from_millis(100),
        }
    }
}

/// The local time zone, which `tz` may name; UTC if that is a device or a large file, which would
/// be read forever.
fn zone_of(tz: Option<&OsStr>) -> TimeZone {
    let name = tz.unwrap_or_default().to_string_lossy();
    let path = Path::new(name.trim_start_matches(':'));
    let is_unreadable = path.is_absolute()
        && fs::metadata(path).is_ok_and(|file| !file.is_file() || file.len() > MAX_ZONE_BYTES);
    if is_unreadable { TimeZone::UTC } else { TimeZone::system() }
}

/// Runs the client until the user quits; the terminal is then restored. Must be called inside a
/// tokio runtime.
///
/// Exits the process with code 0 when the terminal hangs up, since nobody can read anything any
/// more.
///
/// # Errors
/// Of kind `Unsupported` if no screen can be shown ([`screen_problem`]); or when the terminal
/// fails.
pub async fn run(opening: Opening, options: TuiOptions) -> io::Result<TuiExit> {
    if let Some(problem) = screen_problem() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
    }
    // The theme omits colors itself: crossterm's handling of NO_COLOR removes bold and dim as well.
    crossterm::style::force_color_output(true);
    let mut signals = ClientSignals::listen()?;
    let mut writer = FrameWriter::start(Tty)?;
    let _guard = TerminalGuard::hold()?;
    let mut input = InputThread::start()?;
    writer.send(ENTER.to_vec());
    if options.asks_background {
        writer.send(ASK_BACKGROUND.to_vec());
    }
    let now = Instant::now();
    let (app, links, actions) = opened(opening, options.theme);
    let app = app.in_zone(options.zone);
    let mut client = Client {
        app,
        links,
        actions,
        results: unbounded_channel(),
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

fn opened(opening: Opening, theme: Theme) -> (App, Links, Option<HomeActions>) {
    let mut links = Links::default();
    // Process ids are reused after a while; the clock distinguishes such processes.
    let millis =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let client = (u64::from(std::process::id()) << 40) ^ millis;
    match opening {
        Opening::Run { name, access, link } => {
            links.open(RunId::FIRST, link);
            let run = RunScreen::new(RunId::FIRST, name, access, theme);
            (App::of_run(run, client), links, None)
        }
        Opening::Home(actions) => {
            (App::of_home(HomeScreen::new(theme), client), links, Some(actions))
        }
    }
}

impl<S: Fn() -> io::Result<Size>> Client<S> {
    async fn run(
        &mut self,
        signals: &mut ClientSignals,
        input: &mut InputThread,
    ) -> io::Result<()> {
        let mut batch = Vec::new();
        let mut first = self.app.update(Msg::Clock(Duration::ZERO));
        self.perform(&mut first).await?;
        loop {
            let now = Instant::now();
            let wake = self.app.next_wake().map(|wake| self.started + wake);
            let mut effects = tokio::select! {
                biased;
                sent = signals.next() => match sent {
                    ReceivedSignal::HangUp | ReceivedSignal::Leave => return Ok(()),
                    // The group got this signal too, or the sender means this process only.
                    ReceivedSignal::Suspend => {
                        self.suspend(false).await?;
                        Vec::new()
                    }
                    ReceivedSignal::Continued => self.resume()?,
                    ReceivedSignal::Resized => self.on(Msg::Resized, Duration::ZERO),
                },
                received = input.received.recv() => match received.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))? {
                    Input::Key(key) => self.on(Msg::Key(key), Duration::ZERO),
                    Input::Background(background) => self.on(Msg::Background(background), Duration::ZERO),
                },
                result = self.writer.written(), if !self.writer.is_idle() => {
                    result?;
                    Vec::new()
                },
                Some(msg) = self.results.1.recv() => self.on(msg, Duration::ZERO),
                () = self.links.receive(&mut batch) => self.on_feed(&mut batch),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => self.on(Msg::Clock(self.started.elapsed()), Duration::ZERO),
                () = sleep_until(self.draw_at.unwrap_or(now)), if self.draw_at.is_some() && self.writer.is_idle() && !self.is_suspended => {
                    self.draw()?;
                    Vec::new()
                },
            };
            if self.perform(&mut effects).await? {
                return Ok(());
            }
        }
    }

    /// Performs effects. Returns whether the client should exit.
    async fn perform(&mut self, effects: &mut Vec<Effect>) -> io::Result<bool> {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { run, id, command } => self.links.send(run, id, command),
                Effect::Leave => return Ok(true),
                Effect::Suspend => self.suspend(true).await?,
                Effect::Redraw => self.redraw()?,
                Effect::Listen(run, directory, access) => {
                    if let Some(actions) = &self.actions {
                        self.links.open(run, (actions.listen)(&directory, access));
                    }
                }
                Effect::Unlisten(run) => self.links.close(run),
                Effect::List => self.list(),
                Effect::Resume(directory) => {
                    self.work(move |actions| Msg::Opened((actions.resume)(&directory)));
                }
                Effect::Start(config) => {
                    self.work(move |actions| Msg::Opened((actions.start)(&config)));
                }
            }
        }
        Ok(false)
    }

    fn list(&self) {
        let Some(home) = self.app.shown_home() else { return };
        let known = home.runs().to_vec();
        self.work(move |actions| {
            Msg::Runs(RunList { runs: (actions.list)(&known), at: Timestamp::now() })
        });
    }

    /// Runs `work` outside the loop: a folder that hangs must not block the keys.
    fn work(&self, work: impl FnOnce(&HomeActions) -> Msg + Send + 'static) {
        let Some(actions) = self.actions.clone() else { return };
        let results = self.results.0.clone();
        // A client that has exited needs no result.
        spawn_blocking(move || drop(results.send(work(&actions))));
    }

    /// Updates the state with `msg`, and draws within `wait`.
    fn on(&mut self, msg: Msg, wait: Duration) -> Vec<Effect> {
        let mut effects = self.app.update(Msg::Clock(self.started.elapsed()));
        effects.extend(self.app.update(msg));
        let at = Instant::now().max(self.last_draw + wait);
        self.draw_at = Some(self.draw_at.map_or(at, |planned| planned.min(at)));
        effects
    }

    fn on_feed(&mut self, batch: &mut Vec<(RunId, Feed)>) -> Vec<Effect> {
        let wait = self.frame_interval;
        batch.drain(..).flat_map(|(run, feed)| self.on(Msg::Feed(run, feed), wait)).collect()
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

    /// Restores the terminal and suspends this process, and the rest of its group if `with_group`;
    /// does nothing if no shell could continue it. The signal may take effect after the call,
    /// so only SIGCONT ends the suspension.
    async fn suspend(&mut self, with_group: bool) -> io::Result<()> {
        // The signal to the group comes back to this process.
        if self.is_suspended || !has_shell() {
            return Ok(());
        }
        self.leave().await;
        self.is_suspended = true;
        stop(with_group)
    }

    fn resume(&mut self) -> io::Result<Vec<Effect>> {
        self.is_suspended = false;
        retake()?;
        self.writer.send(ENTER.to_vec());
        self.redraw()?;
        Ok(Vec::new())
    }

    /// Restores the terminal; does not wait for one that accepts no output.
    async fn leave(&mut self) {
        self.writer.send(LEAVE.to_vec());
        let _ = timeout(PATIENCE, self.writer.drained()).await;
        release();
    }

    fn exit(&self) -> TuiExit {
        let Some(run) = self.app.first_run() else { return TuiExit::Left };
        match (&run.history.end, &run.link) {
            (Some(end), _) => TuiExit::RunEnded(Box::new(end.clone())),
            (None, LinkState::Ended) => TuiExit::EngineGone,
            (None, LinkState::Waiting | LinkState::Live | LinkState::Lost { .. }) => {
                TuiExit::Detached
            }
        }
    }
}

impl ClientSignals {
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
    async fn next(&mut self) -> ReceivedSignal {
        tokio::select! {
            biased;
            _ = self.hang_up.recv() => ReceivedSignal::HangUp,
            _ = self.terminate.recv() => ReceivedSignal::Leave,
            _ = self.interrupt.recv() => ReceivedSignal::Leave,
            _ = self.suspend.recv() => ReceivedSignal::Suspend,
            _ = self.continued.recv() => ReceivedSignal::Continued,
            _ = self.resized.recv() => ReceivedSignal::Resized,
        }
    }
}

/// Whether `error` means that the terminal was hung up, which counts as quitting.
fn is_gone(error: &io::Error) -> bool {
    const EIO: i32 = Errno::IO.raw_os_error();
    error.raw_os_error() == Some(EIO) || error.kind() == io::ErrorKind::BrokenPipe
}

/// Columns and lines of standard output.
fn terminal_size() -> io::Result<Size> {
    let (width, height) = window_size(rustix::stdio::stdout())?;
    Ok(Size { width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_that_would_be_read_forever_is_utc() {
        for endless in ["/dev/zero", ":/dev/zero", "/dev"] {
            assert_eq!(zone_of(Some(OsStr::new(endless))), TimeZone::UTC, "{endless}");
        }
    }
}
