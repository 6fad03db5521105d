//! The state of the screen of one run and all its transitions.
//!
//! Start at [`RunScreen::on_key`] and [`RunScreen::on_feed`].

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use jiff::tz::TimeZone;

use crate::control::Feed;
use crate::record::{CommandNote, ControlState, History, Record, RunCommand, RunEvent};
use crate::tui::keys::{Look, RunAction, Scroll, Steer, action_of, run_keys};
use crate::tui::message::{Access, CommandIds, Effect, Request, RunId};
use crate::tui::theme::Theme;
use crate::tui::typing::Typing;

/// How long the result of a command is shown.
const NOTICE_DONE: Duration = Duration::from_secs(8);
/// How long a failed command is shown, unless another command replaces it.
const NOTICE_FAILED: Duration = Duration::from_secs(30);
/// If a running engine sends nothing for this long, it is shown as silent.
const SILENCE: Duration = Duration::from_secs(10);

/// The screen of one run.
#[derive(Debug, Clone)]
pub struct RunScreen {
    /// The run.
    pub id: RunId,
    /// The history of the run.
    pub history: History,
    /// Name shown until the run has reported its own.
    pub name: String,
    /// Whether the run can be controlled or is only read.
    pub access: Access,
    /// Whether detaching returns to another screen.
    pub is_above_another: bool,
    /// State of the connection to the engine.
    pub link: LinkState,
    /// The open overlay.
    pub overlay: Overlay,
    /// The pane that `z` zooms.
    pub focus: Pane,
    /// Whether the focused pane is shown alone.
    pub is_zoomed: bool,
    /// Lines that the log is scrolled up from its end.
    pub log_scroll: usize,
    /// Whether the activation strip shows mean |x| instead of rates.
    pub shows_mean: bool,
    /// Colors and glyphs.
    pub theme: Theme,
    /// The newest command with its result.
    pub notice: Option<Notice>,
    /// Time since the client started.
    pub now: Duration,
    /// Time of the engine's last message.
    pub last_message: Duration,
    /// Time zone of the log.
    pub zone: TimeZone,
    /// Commands that wait for the engine's first message.
    held: Vec<Effect>,
    typing: Typing,
    /// When the confirmation dialog was opened.
    asked_at: Duration,
}

/// State of the connection to the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkState {
    /// No message yet.
    Waiting,
    /// Connected.
    Live,
    /// The connection is lost.
    Lost {
        /// Reason, for the user.
        reason: String,
        /// Time of the next attempt, on the client's clock.
        retry_at: Duration,
    },
    /// The engine's process has ended.
    Ended,
}

/// An overlay over the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    None,
    /// The keys, with the scroll position in lines.
    Help(usize),
    /// Plan and decisions of the run.
    About,
    /// The confirmation before a stop.
    ConfirmStop,
}

/// A pane of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// Token loss (K = 1).
    TokenLoss,
    /// The stage's own objective.
    Objective,
    /// Activations.
    Activations,
    /// Samples.
    Samples,
    /// Log lines.
    Log,
}

/// A command of this client with its result; those of others are lines in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Requested command.
    pub command: RunCommand,
    /// Id of the command in the engine's records.
    id: String,
    /// Result so far.
    pub phase: NoticePhase,
    /// Time of that result.
    since: Duration,
}

/// Result of a command so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticePhase {
    /// Sent.
    Sent,
    /// Not sent, since no engine is listening.
    NotSent,
    /// The engine accepted it after this many updates.
    Accepted(u64),
    /// Completed.
    Done(String),
    /// Failed.
    Failed(String),
}

impl Pane {
    /// All panes, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::TokenLoss, Self::Objective, Self::Activations, Self::Samples, Self::Log];

    fn idx(self) -> usize {
        Self::ALL.iter().position(|pane| *pane == self).unwrap_or(0)
    }
}

impl RunScreen {
    /// The screen of a run before its first message.
    #[must_use]
    pub fn new(id: RunId, name: String, access: Access, theme: Theme) -> Self {
        Self {
            id,
            history: History::default(),
            name,
            access,
            is_above_another: false,
            link: LinkState::Waiting,
            overlay: Overlay::None,
            focus: Pane::TokenLoss,
            is_zoomed: false,
            log_scroll: 0,
            shows_mean: false,
            theme,
            notice: None,
            now: Duration::ZERO,
            last_message: Duration::ZERO,
            zone: TimeZone::UTC,
            held: Vec::new(),
            typing: Typing::default(),
            asked_at: Duration::ZERO,
        }
    }

    /// Time passes.
    pub(crate) fn on_clock(&mut self, now: Duration) {
        self.now = now;
        self.notice.take_if(|notice| notice.ends_at().is_some_and(|end| end <= now));
    }

    /// Time of the next change of the screen without a message, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let next_second = Duration::from_secs(self.now.as_secs() + 1);
        let countdown = matches!(self.link, LinkState::Lost { .. }).then_some(next_second);
        let silence = self.can_fall_silent().then(|| {
            if self.silent_for().is_some() { next_second } else { self.last_message + SILENCE }
        });
        let notice = self.notice.as_ref().and_then(Notice::ends_at);
        let question = (self.overlay == Overlay::ConfirmStop && !self.can_confirm())
            .then(|| self.typing.quiet_at())
            .flatten();
        [countdown, silence, notice, question].into_iter().flatten().min()
    }

    /// How long a running engine has been silent, if longer than usual.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let silence = self.now.saturating_sub(self.last_message);
        (self.can_fall_silent() && silence >= SILENCE).then_some(silence)
    }

    /// Name of the run, raw.
    #[must_use]
    pub fn run_name(&self) -> &str {
        self.history.header.as_ref().map_or(self.name.as_str(), |header| &header.name)
    }

    fn can_fall_silent(&self) -> bool {
        self.link == LinkState::Live
            && matches!(
                self.history.control,
                ControlState::Running | ControlState::Pausing | ControlState::Stopping
            )
    }

    /// Whether Enter confirms the open dialog: not within the burst of keys that opened it.
    pub(crate) fn can_confirm(&self) -> bool {
        self.typing.would_begin_after(self.asked_at, self.now)
    }

    /// A key was pressed; a command gets its id from `ids`.
    pub(crate) fn on_key(&mut self, event: KeyEvent, ids: &mut CommandIds) -> Vec<Request> {
        let is_alone = self.typing.note(self.now);
        let action = action_of(run_keys(self.access), event)
            .filter(|action| is_alone || !action.is_command());
        let is_answer = self.overlay == Overlay::ConfirmStop
            && !matches!(action, Some(RunAction::Detach | RunAction::Redraw | RunAction::Suspend));
        match action {
            _ if is_answer => self.on_answer(event, action, ids),
            Some(action) => self.on_action(action, ids),
            None => Vec::new(),
        }
    }

    /// The answer to "stop the run?": only Enter confirms, every other key cancels, so that typed
    /// text never confirms.
    fn on_answer(
        &mut self,
        event: KeyEvent,
        action: Option<RunAction>,
        ids: &mut CommandIds,
    ) -> Vec<Request> {
        if event.code == KeyCode::Enter && !self.typing.began_after(self.asked_at) {
            return Vec::new();
        }
        let is_confirmed = event.code == KeyCode::Enter;
        self.overlay =
            if action == Some(RunAction::Help) { Overlay::Help(0) } else { Overlay::None };
        if is_confirmed { self.send(RunCommand::Stop, ids) } else { Vec::new() }
    }

    fn on_action(&mut self, action: RunAction, ids: &mut CommandIds) -> Vec<Request> {
        match action {
            RunAction::Detach => return vec![Request::Close],
            RunAction::Redraw => return vec![Effect::Redraw.into()],
            RunAction::Suspend => return vec![Effect::Suspend.into()],
            RunAction::Help => {
                let is_open = matches!(self.overlay, Overlay::Help(_));
                self.overlay = if is_open { Overlay::None } else { Overlay::Help(0) };
            }
            RunAction::About => {
                self.overlay = match self.overlay {
                    Overlay::None => Overlay::About,
                    Overlay::About => Overlay::None,
                    other @ (Overlay::Help(_) | Overlay::ConfirmStop) => other,
                }
            }
            RunAction::Scroll(scroll) => self.scroll(scroll),
            RunAction::Back if self.overlay != Overlay::None => self.overlay = Overlay::None,
            RunAction::Back => return self.back(),
            RunAction::Steer(_) | RunAction::Look(_) if self.overlay != Overlay::None => {}
            RunAction::Steer(steer) => return self.steer(steer, ids),
            RunAction::Look(look) => self.look(look),
        }
        Vec::new()
    }

    fn steer(&mut self, steer: Steer, ids: &mut CommandIds) -> Vec<Request> {
        let command = match steer {
            Steer::TogglePause if self.is_held() => RunCommand::Resume,
            Steer::TogglePause => RunCommand::Pause,
            Steer::Checkpoint => RunCommand::Checkpoint,
            Steer::Evaluate => RunCommand::Evaluate,
            Steer::Sample => RunCommand::Sample,
            Steer::Stop if self.is_over() => RunCommand::Stop,
            Steer::Stop => {
                self.overlay = Overlay::ConfirmStop;
                self.asked_at = self.now;
                return Vec::new();
            }
        };
        self.send(command, ids)
    }

    fn look(&mut self, look: Look) {
        let panes = Pane::ALL.len();
        match look {
            Look::ZoomLog => {
                self.is_zoomed = !(self.is_zoomed && self.focus == Pane::Log);
                self.focus = Pane::Log;
            }
            Look::NextPane => self.focus = Pane::ALL[(self.focus.idx() + 1) % panes],
            Look::PreviousPane => self.focus = Pane::ALL[(self.focus.idx() + panes - 1) % panes],
            Look::Zoom => self.is_zoomed = !self.is_zoomed,
            Look::Focus(idx) => self.focus = Pane::ALL[idx.min(panes - 1)],
            Look::ToggleStrip => self.shows_mean = !self.shows_mean,
            Look::ToggleMarkers => self.theme.toggle_markers(),
            Look::ToggleBackground => self.theme.toggle_background(),
        }
    }

    /// Scrolls the open help, or the log.
    fn scroll(&mut self, scroll: Scroll) {
        match (&mut self.overlay, scroll) {
            (Overlay::Help(at), scroll) => *at = scroll.from(*at, run_keys(self.access).count()),
            // The log grows downward, so scrolling up increases the distance from its end.
            (Overlay::None, Scroll::Up) => {
                self.log_scroll = Scroll::Down.from(self.log_scroll, self.history.log.len());
            }
            (Overlay::None, Scroll::Down) => {
                self.log_scroll = Scroll::Up.from(self.log_scroll, self.history.log.len());
            }
            (Overlay::About | Overlay::ConfirmStop, _) => {}
        }
    }

    /// Returns to the unscrolled panes, and from them to the screen below, if there is one.
    fn back(&mut self) -> Vec<Request> {
        let is_at_rest = !self.is_zoomed && self.log_scroll == 0 && self.notice.is_none();
        if self.is_above_another && is_at_rest {
            return vec![Request::Close];
        }
        self.is_zoomed = false;
        self.log_scroll = 0;
        self.notice = None;
        Vec::new()
    }

    /// Whether the run is paused, or will be according to the pending command.
    fn is_held(&self) -> bool {
        match &self.notice {
            // The answer is still pending; a second press means the opposite.
            Some(Notice { command: RunCommand::Pause, phase: NoticePhase::Sent, .. }) => true,
            Some(Notice { command: RunCommand::Resume, phase: NoticePhase::Sent, .. }) => false,
            _ => matches!(self.history.control, ControlState::Pausing | ControlState::Paused),
        }
    }

    /// Whether the run cannot change any more by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.link == LinkState::Ended || self.history.control == ControlState::Finished
    }

    /// Sends `command`, now or once the engine has answered; the notice shows if no engine is
    /// listening.
    fn send(&mut self, command: RunCommand, ids: &mut CommandIds) -> Vec<Request> {
        let id = ids.next();
        let effect = Effect::Send { run: self.id, id: id.clone(), command };
        let (phase, requests) = match self.link {
            _ if self.is_over() => (NoticePhase::NotSent, Vec::new()),
            LinkState::Lost { .. } | LinkState::Ended => (NoticePhase::NotSent, Vec::new()),
            LinkState::Live => (NoticePhase::Sent, vec![effect.into()]),
            LinkState::Waiting => {
                self.held.push(effect);
                (NoticePhase::Sent, Vec::new())
            }
        };
        self.notice = Some(Notice { command, id, phase, since: self.now });
        requests
    }

    /// The link of the run reported something; answers are recognized by `ids`.
    pub(crate) fn on_feed(&mut self, feed: Feed, ids: &CommandIds) -> Vec<Request> {
        match feed {
            Feed::Snapshot(history) => {
                self.history = *history;
                self.mark_message();
            }
            Feed::Record(record) => {
                self.mark_message();
                self.on_record(&record, ids);
            }
            Feed::Heartbeat => self.last_message = self.now,
            Feed::Lost { reason, retry_seconds } => {
                let wait = Duration::try_from_secs_f64(retry_seconds).unwrap_or_default();
                self.link = LinkState::Lost { reason, retry_at: self.now.saturating_add(wait) };
            }
            Feed::Ended { history } => {
                self.history = *history;
                self.link = LinkState::Ended;
                if self.overlay == Overlay::ConfirmStop {
                    self.overlay = Overlay::None;
                }
                // No answer will follow.
                self.notice.take_if(|notice| matches!(notice.phase, NoticePhase::Accepted(_)));
            }
        }
        self.release_held()
    }

    fn mark_message(&mut self) {
        self.link = LinkState::Live;
        self.last_message = self.now;
    }

    /// The commands that waited for the engine's first message; without an engine they are dropped,
    /// and the notice says so.
    fn release_held(&mut self) -> Vec<Request> {
        if self.link == LinkState::Waiting {
            return Vec::new();
        }
        let held = std::mem::take(&mut self.held);
        if self.link == LinkState::Live && !self.is_over() {
            return held.into_iter().map(Request::from).collect();
        }
        if let (false, Some(notice)) = (held.is_empty(), &mut self.notice) {
            notice.phase = NoticePhase::NotSent;
            notice.since = self.now;
        }
        Vec::new()
    }

    fn on_record(&mut self, record: &Record, ids: &CommandIds) {
        if record.seq <= self.history.last_seq {
            return;
        }
        match &record.event {
            RunEvent::CommandAccepted(note) => {
                self.on_note(note, NoticePhase::Accepted(note.step), ids);
            }
            RunEvent::CommandDone(note) => {
                self.on_note(note, NoticePhase::Done(note.message.clone()), ids);
            }
            RunEvent::CommandFailed(note) => {
                self.on_note(note, NoticePhase::Failed(note.message.clone()), ids);
            }
            _ => {}
        }
        let lines = self.history.log.len();
        self.history.apply(record);
        // If the user scrolled up, keep the visible lines in place.
        if self.log_scroll > 0 {
            self.log_scroll = (self.log_scroll + self.history.log.len().saturating_sub(lines))
                .min(self.history.log.len());
        }
    }

    fn on_note(&mut self, note: &CommandNote, phase: NoticePhase, ids: &CommandIds) {
        // This client's last command is shown until it is answered.
        let is_covered = self
            .notice
            .as_ref()
            .is_some_and(|notice| notice.waits_at(self.now) && notice.id != note.id);
        if ids.is_own(&note.id) && !is_covered {
            self.notice =
                Some(Notice { command: note.command, id: note.id.clone(), phase, since: self.now });
        }
    }
}

impl Notice {
    /// Whether the command is still waiting for its first answer.
    fn waits_at(&self, now: Duration) -> bool {
        self.phase == NoticePhase::Sent && now.saturating_sub(self.since) < SILENCE
    }

    fn ends_at(&self) -> Option<Duration> {
        match self.phase {
            NoticePhase::Sent | NoticePhase::Accepted(_) => None,
            NoticePhase::Done(_) | NoticePhase::NotSent => Some(self.since + NOTICE_DONE),
            NoticePhase::Failed(_) => Some(self.since + NOTICE_FAILED),
        }
    }
}
