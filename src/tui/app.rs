//! The state of the client and every way it changes.
//!
//! [`App::update`] is a plain function of state and message: no clock, no terminal, no sockets. What is to be done outside
//! comes back as [`Effect`]s. Time is what [`Msg::Clock`] said last.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};

use crate::control::Feed;
use crate::run::{CommandNote, ControlState, History, Record, RunCommand, RunEvent};
use crate::tui::keys::{Action, BINDINGS, action_of};
use crate::tui::theme::{Look, Markers};

/// How long a finished command is shown.
const NOTICE_DONE: Duration = Duration::from_secs(8);
/// How long a failed command is shown; it also goes with the next command.
const NOTICE_FAILED: Duration = Duration::from_secs(30);
/// A running engine that says nothing for so long is called silent.
const SILENCE: Duration = Duration::from_secs(10);

/// The state of the client.
#[derive(Debug, Clone)]
pub struct App {
    /// What the run has said.
    pub history: History,
    /// What the run is called before it has said so.
    pub name: String,
    /// Whether the engine can be heard.
    pub link: Link,
    /// What lies over the screen.
    pub overlay: Overlay,
    /// The pane that `z` zooms.
    pub focus: Pane,
    /// Whether the focused pane is shown alone.
    pub is_zoomed: bool,
    /// Lines that the log is scrolled up from its end.
    pub log_scroll: usize,
    /// Whether the activation strip shows mean |x| instead of rates.
    pub shows_mean: bool,
    /// Colours and glyphs.
    pub look: Look,
    /// The newest command and what became of it.
    pub notice: Option<Notice>,
    /// Time since the client started.
    pub now: Duration,
    /// When the engine was heard last.
    pub heard: Duration,
}

/// Whether the engine can be heard.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// Nothing has come yet.
    Waiting,
    /// Records come in.
    Live,
    /// The connection is gone.
    Lost {
        /// Why.
        reason: String,
        /// When it is tried again, on the client's clock.
        retry_at: Duration,
    },
    /// The engine's process has ended.
    Ended,
}

/// What lies over the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    None,
    /// The keys, scrolled down by so many lines.
    Help(usize),
    /// What the run is.
    About,
    /// Whether to stop the run.
    ConfirmStop,
}

/// A pane of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// Token-level loss.
    TokenLoss,
    /// The stage's own objective.
    Objective,
    /// Activation rates.
    Activations,
    /// Generated text.
    Samples,
    /// Log lines.
    Log,
}

/// A command and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What was asked.
    pub command: RunCommand,
    /// Who asked, if it was not this client.
    pub from: Option<String>,
    /// The name the engine's records give it, once known.
    id: Option<String>,
    /// What became of it.
    pub phase: NoticePhase,
    /// When that was.
    since: Duration,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticePhase {
    /// It was sent.
    Asked,
    /// It was not sent, for there is nobody to hear it.
    Unheard,
    /// The engine heard it after this many updates.
    Accepted(u64),
    /// It was carried out.
    Done(String),
    /// It was not carried out.
    Failed(String),
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// The engine said something.
    Feed(Feed),
    /// Time since the client started.
    Clock(Duration),
    /// The terminal has another size, or this client is back from a suspension.
    Resized,
}

/// Something to be done outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tell the engine.
    Send(RunCommand),
    /// Leave; the run goes on.
    Detach,
    /// Suspend this client.
    Suspend,
    /// Draw everything again.
    Redraw,
}

impl Pane {
    /// All panes, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::TokenLoss, Self::Objective, Self::Activations, Self::Samples, Self::Log];

    fn idx(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0)
    }
}

impl App {
    /// A client that has heard nothing yet.
    #[must_use]
    pub fn new(name: String, look: Look) -> Self {
        Self {
            history: History::default(),
            name,
            link: Link::Waiting,
            overlay: Overlay::None,
            focus: Pane::TokenLoss,
            is_zoomed: false,
            log_scroll: 0,
            shows_mean: false,
            look,
            notice: None,
            now: Duration::ZERO,
            heard: Duration::ZERO,
        }
    }

    /// Changes the state by `msg` and returns what is to be done outside.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        match msg {
            Msg::Key(event) => self.on_key(event),
            Msg::Feed(feed) => {
                self.on_feed(feed);
                Vec::new()
            }
            Msg::Clock(now) => {
                self.now = now;
                if self.notice.as_ref().is_some_and(|notice| notice.ends_at().is_some_and(|end| end <= now)) {
                    self.notice = None;
                }
                Vec::new()
            }
            Msg::Resized => Vec::new(),
        }
    }

    /// When the picture changes next although nothing happens, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let next_second = Duration::from_secs(self.now.as_secs() + 1);
        let countdown = matches!(self.link, Link::Lost { .. }).then_some(next_second);
        let silence = self.can_fall_silent().then(|| if self.silent_for().is_some() { next_second } else { self.heard + SILENCE });
        let notice = self.notice.as_ref().and_then(Notice::ends_at);
        [countdown, silence, notice].into_iter().flatten().min()
    }

    /// For how long a running engine has said nothing, if that is remarkable.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let silence = self.now.saturating_sub(self.heard);
        (self.can_fall_silent() && silence >= SILENCE).then_some(silence)
    }

    /// What the run is called, raw.
    #[must_use]
    pub fn run_name(&self) -> &str {
        self.history.header.as_ref().map_or(self.name.as_str(), |header| &header.name)
    }

    fn can_fall_silent(&self) -> bool {
        self.link == Link::Live && matches!(self.history.control, ControlState::Running | ControlState::Pausing | ControlState::Stopping)
    }

    fn on_key(&mut self, event: KeyEvent) -> Vec<Effect> {
        let action = action_of(event);
        match (self.overlay, action) {
            (_, Some(Action::Detach)) => vec![Effect::Detach],
            (_, Some(Action::Redraw)) => vec![Effect::Redraw],
            (_, Some(Action::Suspend)) => vec![Effect::Suspend],
            (Overlay::ConfirmStop, _) => self.on_answer(event),
            (Overlay::Help(_), Some(Action::Help)) | (Overlay::Help(_) | Overlay::About, Some(Action::Back)) | (Overlay::About, Some(Action::About)) => {
                self.overlay = Overlay::None;
                Vec::new()
            }
            (_, Some(Action::Help)) => {
                self.overlay = Overlay::Help(0);
                Vec::new()
            }
            (Overlay::Help(scroll), action) => {
                self.overlay = Overlay::Help(scrolled(scroll, action, BINDINGS.len()));
                Vec::new()
            }
            (Overlay::None, Some(action)) => self.on_action(action),
            (Overlay::About, _) | (Overlay::None, None) => Vec::new(),
        }
    }

    /// The answer to "stop the run?"; anything that is neither yes nor no is ignored.
    fn on_answer(&mut self, event: KeyEvent) -> Vec<Effect> {
        match (event.code, action_of(event)) {
            (KeyCode::Char('y' | 'Y') | KeyCode::Enter, _) => {
                self.overlay = Overlay::None;
                self.send(RunCommand::Stop)
            }
            (KeyCode::Char('n' | 'N') | KeyCode::Esc, _) => {
                self.overlay = Overlay::None;
                Vec::new()
            }
            (_, Some(Action::Help)) => {
                self.overlay = Overlay::Help(0);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn on_action(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::TogglePause => {
                return self.send(if self.is_held() { RunCommand::Resume } else { RunCommand::Pause });
            }
            Action::Checkpoint => return self.send(RunCommand::Checkpoint),
            Action::Evaluate => return self.send(RunCommand::Evaluate),
            Action::Sample => return self.send(RunCommand::Sample),
            Action::Stop if self.is_over() => return self.send(RunCommand::Stop),
            Action::Stop => self.overlay = Overlay::ConfirmStop,
            Action::About => self.overlay = Overlay::About,
            Action::ZoomLog => {
                self.is_zoomed = !(self.is_zoomed && self.focus == Pane::Log);
                self.focus = Pane::Log;
            }
            Action::NextPane => self.focus = Pane::ALL[(self.focus.idx() + 1) % Pane::ALL.len()],
            Action::PreviousPane => self.focus = Pane::ALL[(self.focus.idx() + Pane::ALL.len() - 1) % Pane::ALL.len()],
            Action::Zoom => self.is_zoomed = !self.is_zoomed,
            Action::Focus(idx) => self.focus = Pane::ALL[idx.min(Pane::ALL.len() - 1)],
            Action::Back => {
                self.is_zoomed = false;
                self.log_scroll = 0;
                self.notice = None;
            }
            Action::ScrollUp | Action::ScrollDown => {
                // The log grows downwards, so scrolling up moves away from its end.
                let direction = if action == Action::ScrollUp { Action::ScrollDown } else { Action::ScrollUp };
                self.log_scroll = scrolled(self.log_scroll, Some(direction), self.history.log.len());
            }
            Action::ToggleStrip => self.shows_mean = !self.shows_mean,
            Action::ToggleMarkers => {
                self.look.markers = if self.look.markers == Markers::Braille { Markers::Ascii } else { Markers::Braille };
            }
            Action::Detach | Action::Redraw | Action::Suspend | Action::Help => {}
        }
        Vec::new()
    }

    /// Whether the run is paused, or will be as far as this client knows.
    fn is_held(&self) -> bool {
        match &self.notice {
            // The answer is still on its way; a second press means the opposite.
            Some(Notice { command: RunCommand::Pause, phase: NoticePhase::Asked, .. }) => true,
            Some(Notice { command: RunCommand::Resume, phase: NoticePhase::Asked, .. }) => false,
            _ => matches!(self.history.control, ControlState::Pausing | ControlState::Paused),
        }
    }

    fn is_over(&self) -> bool {
        self.link == Link::Ended || self.history.control == ControlState::Finished
    }

    fn send(&mut self, command: RunCommand) -> Vec<Effect> {
        let is_heard = self.link == Link::Live && !self.is_over();
        let phase = if is_heard { NoticePhase::Asked } else { NoticePhase::Unheard };
        self.notice = Some(Notice { command, from: None, id: None, phase, since: self.now });
        if is_heard { vec![Effect::Send(command)] } else { Vec::new() }
    }

    fn on_feed(&mut self, feed: Feed) {
        match feed {
            Feed::Snapshot(history) => {
                self.history = *history;
                self.link = Link::Live;
                self.heard = self.now;
            }
            Feed::Record(record) => {
                self.link = Link::Live;
                self.heard = self.now;
                self.on_record(&record);
            }
            Feed::Lost { reason, retry_seconds } => {
                let wait = Duration::try_from_secs_f64(retry_seconds).unwrap_or_default();
                self.link = Link::Lost { reason, retry_at: self.now.saturating_add(wait) };
            }
            Feed::Ended { history } => {
                self.history = *history;
                self.link = Link::Ended;
                if self.overlay == Overlay::ConfirmStop {
                    self.overlay = Overlay::None;
                }
            }
        }
    }

    fn on_record(&mut self, record: &Record) {
        if record.seq <= self.history.last_seq {
            return;
        }
        match &record.event {
            RunEvent::CommandAccepted(note) => self.on_note(note, NoticePhase::Accepted(note.step)),
            RunEvent::CommandDone(note) => self.on_note(note, NoticePhase::Done(note.message.clone())),
            RunEvent::CommandFailed(note) => self.on_note(note, NoticePhase::Failed(note.message.clone())),
            _ => {}
        }
        let lines = self.history.log.len();
        self.history.apply(record);
        // A reader who scrolled up keeps the lines in view.
        if self.log_scroll > 0 {
            self.log_scroll = (self.log_scroll + self.history.log.len().saturating_sub(lines)).min(self.history.log.len());
        }
    }

    fn on_note(&mut self, note: &CommandNote, phase: NoticePhase) {
        if self.notice.as_ref().is_some_and(|notice| notice.waits_at(self.now) && notice.command != note.command) {
            return;
        }
        let known = self.notice.take().filter(|notice| notice.command == note.command && notice.id.as_ref().is_none_or(|id| *id == note.id));
        // What this client sends has no name here; the first answer to the same command is taken for its own.
        let from = known.map_or_else(|| Some(note.from.clone()), |notice| notice.from);
        self.notice = Some(Notice { command: note.command, from, id: Some(note.id.clone()), phase, since: self.now });
    }
}

impl Notice {
    /// Whether this client's own command is still waiting for its first answer.
    fn waits_at(&self, now: Duration) -> bool {
        self.from.is_none() && self.phase == NoticePhase::Asked && now.saturating_sub(self.since) < SILENCE
    }

    fn ends_at(&self) -> Option<Duration> {
        match self.phase {
            NoticePhase::Asked | NoticePhase::Accepted(_) => None,
            NoticePhase::Done(_) | NoticePhase::Unheard => Some(self.since + NOTICE_DONE),
            NoticePhase::Failed(_) => Some(self.since + NOTICE_FAILED),
        }
    }
}

fn scrolled(scroll: usize, action: Option<Action>, limit: usize) -> usize {
    match action {
        Some(Action::ScrollUp) => scroll.saturating_sub(1),
        Some(Action::ScrollDown) => (scroll + 1).min(limit),
        _ => scroll,
    }
}
