//! The state of the list of runs and all its transitions.
//!
//! The selection is a run, not a line: it stays selected when the lines move. Start at
//! [`HomeScreen::on_key`].

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::record::{RunDirectory, RunState, RunSummary};
use crate::tui::keys::{HOME_KEYS, HomeAction, Jump, Scroll, action_of};
use crate::tui::message::{Access, Effect, Refusal, Request, RunList};
use crate::tui::theme::Theme;
use crate::tui::typing::Typing;

/// Interval of reading the list.
const REFRESH: Duration = Duration::from_secs(1);
/// If reading takes longer than this, the list is marked as old.
const OLD: Duration = Duration::from_secs(5);
/// Maximum length of the input line, in characters.
const LONGEST: usize = 1024;

/// The list of runs.
#[derive(Debug, Clone)]
pub struct HomeScreen {
    /// The runs, once read.
    pub list: Option<RunList>,
    /// The selected line, counted from 0.
    pub selected: usize,
    /// Question or message below the list.
    pub prompt: Prompt,
    /// Scroll position of the key help in lines, if it is shown.
    pub help: Option<usize>,
    /// Colors and glyphs.
    pub theme: Theme,
    /// Time since the client started.
    pub now: Duration,
    /// Whether the list is being read.
    is_reading: bool,
    /// When the last reading began or ended.
    read_at: Option<Duration>,
    typing: Typing,
    /// When the input line was opened.
    asked_at: Duration,
}

/// A prompt or message below the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Nothing.
    None,
    /// Asks what to start; contains the text typed so far.
    Start(String),
    /// A run is being started or resumed.
    Busy(String),
    /// Starting or resuming failed.
    Refused(Refusal),
}

impl HomeScreen {
    /// A list that has not been read yet.
    #[must_use]
    pub fn new(theme: Theme) -> Self {
        Self {
            list: None,
            selected: 0,
            prompt: Prompt::None,
            help: None,
            theme,
            now: Duration::ZERO,
            is_reading: false,
            read_at: None,
            typing: Typing::default(),
            asked_at: Duration::ZERO,
        }
    }

    /// The runs read so far.
    #[must_use]
    pub fn runs(&self) -> &[RunSummary] {
        self.list.as_ref().map_or(&[], |list| &list.runs)
    }

    /// The selected run.
    #[must_use]
    pub fn selected_run(&self) -> Option<&RunSummary> {
        self.runs().get(self.selected)
    }

    /// Age of the list, if reading it again takes too long.
    #[must_use]
    pub fn old_for(&self) -> Option<Duration> {
        let age = self.now.saturating_sub(self.read_at?);
        (self.is_reading && age >= OLD).then_some(age)
    }

    /// Time of the next change of the screen without a message, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let next_second = Duration::from_secs(self.now.as_secs() + 1);
        let list = if self.is_reading {
            next_second
        } else {
            self.read_at.map_or(self.now, |at| at + REFRESH)
        };
        let question = (matches!(self.prompt, Prompt::Start(_)) && !self.can_confirm())
            .then(|| self.typing.quiet_at())
            .flatten();
        Some(question.map_or(list, |question| list.min(question)))
    }

    /// Whether Enter starts the typed text: not within the burst of keys that opened the input
    /// line.
    pub(crate) fn can_confirm(&self) -> bool {
        self.typing.would_begin_after(self.asked_at, self.now)
    }

    /// Reads the list when it is due at `now`.
    pub(crate) fn on_clock(&mut self, now: Duration) -> Vec<Request> {
        self.now = now;
        if self.is_reading || self.read_at.is_some_and(|at| at + REFRESH > now) {
            return Vec::new();
        }
        self.is_reading = true;
        self.read_at = Some(now);
        vec![Effect::List.into()]
    }

    /// The requested run is there, or why not.
    pub(crate) fn on_opened(&mut self, opened: Result<RunDirectory, Refusal>) -> Vec<Request> {
        // Do not interrupt a user who is typing by now, or has opened another run.
        let was_asked = matches!(self.prompt, Prompt::Busy(_));
        match opened {
            Ok(directory) => {
                self.prompt = Prompt::None;
                was_asked.then_some(Request::Open(directory, Access::Steer)).into_iter().collect()
            }
            Err(refusal) => {
                self.prompt = Prompt::Refused(refusal);
                Vec::new()
            }
        }
    }

    /// The list was read.
    pub(crate) fn on_list(&mut self, list: RunList) {
        let directory = self.selected_run().map(|run| run.directory.clone());
        let same = directory
            .and_then(|directory| list.runs.iter().position(|run| run.directory == directory));
        self.selected = same.unwrap_or(self.selected).min(list.runs.len().saturating_sub(1));
        self.list = Some(list);
        self.is_reading = false;
        self.read_at = Some(self.now);
    }

    /// A key was pressed.
    pub(crate) fn on_key(&mut self, event: KeyEvent) -> Vec<Request> {
        let is_alone = self.typing.note(self.now);
        let action =
            action_of(HOME_KEYS.iter(), event).filter(|action| is_alone || !action.is_command());
        let is_typed = matches!(self.prompt, Prompt::Start(_))
            && !matches!(action, Some(HomeAction::Redraw | HomeAction::Suspend));
        match action {
            _ if is_typed => self.on_typed(event),
            Some(action) => self.on_action(action),
            None => Vec::new(),
        }
    }

    fn on_action(&mut self, action: HomeAction) -> Vec<Request> {
        let has_help = self.help.is_some();
        let is_busy = matches!(self.prompt, Prompt::Busy(_));
        match action {
            HomeAction::Redraw => return vec![Effect::Redraw.into()],
            HomeAction::Suspend => return vec![Effect::Suspend.into()],
            HomeAction::Quit => return vec![Request::Close],
            HomeAction::Help => self.help = if has_help { None } else { Some(0) },
            HomeAction::Select(jump) => self.jump(jump),
            HomeAction::Back if has_help => self.help = None,
            HomeAction::Open
            | HomeAction::Resume
            | HomeAction::Start
            | HomeAction::ToggleMarkers
            | HomeAction::ToggleBackground
                if has_help => {}
            HomeAction::Open => return self.open(),
            HomeAction::Resume | HomeAction::Start | HomeAction::Back if is_busy => {}
            HomeAction::Resume => return self.resume(),
            HomeAction::Start => {
                self.prompt = Prompt::Start(String::new());
                self.asked_at = self.now;
            }
            HomeAction::Back => self.prompt = Prompt::None,
            HomeAction::ToggleMarkers => self.theme.toggle_markers(),
            HomeAction::ToggleBackground => self.theme.toggle_background(),
        }
        Vec::new()
    }

    fn open(&mut self) -> Vec<Request> {
        let Some(run) = self.selected_run() else { return Vec::new() };
        let access = if is_alive(run) { Access::Steer } else { Access::Read };
        let request = Request::Open(run.directory.clone(), access);
        // The run being started will appear in the list.
        self.prompt = Prompt::None;
        vec![request]
    }

    fn resume(&mut self) -> Vec<Request> {
        let Some(run) = self.selected_run() else { return Vec::new() };
        if is_alive(run) {
            return self.open();
        }
        let (effect, name) = (Effect::Resume(run.directory.clone()), run.name.clone());
        self.prompt = Prompt::Busy(format!("resuming {name}"));
        vec![effect.into()]
    }

    /// Moves the selection, or scrolls the open help.
    fn jump(&mut self, jump: Jump) {
        // The rows of a 24-line screen: the list itself does not know its drawn height.
        const PAGE: usize = 10;
        if let Some(scroll) = &mut self.help {
            *scroll = match jump {
                Jump::Up | Jump::PageUp => Scroll::Up.from(*scroll, HOME_KEYS.len()),
                Jump::Down | Jump::PageDown => Scroll::Down.from(*scroll, HOME_KEYS.len()),
                Jump::First | Jump::Last => *scroll,
            };
            return;
        }
        let last = self.runs().len().saturating_sub(1);
        self.selected = match jump {
            Jump::Up => self.selected.saturating_sub(1),
            Jump::Down => (self.selected + 1).min(last),
            Jump::PageUp => self.selected.saturating_sub(PAGE),
            Jump::PageDown => (self.selected + PAGE).min(last),
            Jump::First => 0,
            Jump::Last => last,
        };
    }

    /// Handles a key while the input line is open.
    fn on_typed(&mut self, event: KeyEvent) -> Vec<Request> {
        let Prompt::Start(line) = &mut self.prompt else { return Vec::new() };
        match (event.code, event.modifiers & !KeyModifiers::SHIFT) {
            (KeyCode::Char('c'), KeyModifiers::CONTROL) | (KeyCode::Esc, _) => {
                self.prompt = Prompt::None;
            }
            (KeyCode::Char('u'), KeyModifiers::CONTROL) => line.clear(),
            (KeyCode::Char(char), KeyModifiers::NONE) if line.chars().count() < LONGEST => {
                line.push(char);
            }
            (KeyCode::Backspace, _) => drop(line.pop()),
            (KeyCode::Enter, _) if self.typing.began_after(self.asked_at) => {
                let config =
                    if line.trim().is_empty() { "demo".to_owned() } else { line.trim().to_owned() };
                self.prompt = Prompt::Busy(format!("starting {config}"));
                return vec![Effect::Start(config).into()];
            }
            _ => {}
        }
        Vec::new()
    }
}

/// Whether `run` is running.
pub(crate) fn is_alive(run: &RunSummary) -> bool {
    matches!(run.state, RunState::Alive | RunState::Paused)
}
