//! The state of the list of runs and all its transitions.
//!
//! The selection is a run, not a line: it stays selected when the lines move. Start at
//! [`HomeScreen::update`].

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::record::{RunState, RunSummary};
use crate::tui::app::{Effect, Msg, Refusal, RunList};
use crate::tui::keys::{Action, Jump, ScreenKind, action_of, bindings};
use crate::tui::run_screen::{Access, scrolled};
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

    /// Updates the screen with `msg` and returns the effects to perform.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        match msg {
            Msg::Key(event) if event.kind != KeyEventKind::Release => return self.on_key(event),
            Msg::Clock(now) => {
                self.now = now;
                if !self.is_reading && self.read_at.is_none_or(|at| at + REFRESH <= now) {
                    self.is_reading = true;
                    self.read_at = Some(now);
                    return vec![Effect::List];
                }
            }
            Msg::Runs(list) => self.on_list(list),
            Msg::Opened(Ok(directory)) => {
                let was_asked = matches!(self.prompt, Prompt::Busy(_));
                self.prompt = Prompt::None;
                // Do not interrupt a user who is typing by now, or has opened another run.
                return if was_asked {
                    vec![Effect::Listen(directory, Access::Steer)]
                } else {
                    Vec::new()
                };
            }
            Msg::Opened(Err(refusal)) => self.prompt = Prompt::Refused(refusal),
            Msg::Background(background) => self.theme.background = background,
            Msg::Key(_) | Msg::Feed(_) | Msg::Resized => {}
        }
        Vec::new()
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

    fn on_list(&mut self, list: RunList) {
        let directory = self.selected_run().map(|run| run.directory.clone());
        let same = directory
            .and_then(|directory| list.runs.iter().position(|run| run.directory == directory));
        self.selected = same.unwrap_or(self.selected).min(list.runs.len().saturating_sub(1));
        self.list = Some(list);
        self.is_reading = false;
        self.read_at = Some(self.now);
    }

    fn on_key(&mut self, event: KeyEvent) -> Vec<Effect> {
        let is_alone = self.typing.note(self.now);
        let action =
            action_of(ScreenKind::Home, event).filter(|action| is_alone || !action.is_command());
        match (action, &self.prompt, self.help) {
            (Some(Action::Redraw), ..) => return vec![Effect::Redraw],
            (Some(Action::Suspend), ..) => return vec![Effect::Suspend],
            (_, Prompt::Start(_), _) => return self.on_typed(event),
            (Some(Action::Detach), ..) => return vec![Effect::Detach],
            (Some(Action::Help), _, help) => {
                self.help = if help.is_some() { None } else { Some(0) }
            }
            (Some(Action::Back), _, Some(_)) => self.help = None,
            (action, _, Some(scroll)) => self.help = Some(help_scrolled(scroll, action)),
            (Some(action), _, None) => return self.on_action(action),
            (None, ..) => {}
        }
        Vec::new()
    }

    fn on_action(&mut self, action: Action) -> Vec<Effect> {
        let is_busy = matches!(self.prompt, Prompt::Busy(_));
        match action {
            Action::Open => return self.open(),
            Action::Resume if !is_busy => return self.resume(),
            Action::Start if !is_busy => {
                self.prompt = Prompt::Start(String::new());
                self.asked_at = self.now;
            }
            Action::Select(jump) => self.jump(jump),
            Action::Back if !is_busy => self.prompt = Prompt::None,
            Action::ToggleMarkers => self.theme.toggle_markers(),
            Action::ToggleBackground => self.theme.toggle_background(),
            // Other messages are handled before, or belong to another screen.
            _ => {}
        }
        Vec::new()
    }

    fn open(&mut self) -> Vec<Effect> {
        let Some(run) = self.selected_run() else { return Vec::new() };
        let effect = Effect::Listen(
            run.directory.clone(),
            if is_alive(run) { Access::Steer } else { Access::Read },
        );
        // The run being started will appear in the list.
        self.prompt = Prompt::None;
        vec![effect]
    }

    fn resume(&mut self) -> Vec<Effect> {
        let Some(run) = self.selected_run() else { return Vec::new() };
        if is_alive(run) {
            return self.open();
        }
        let (effect, name) = (Effect::Resume(run.directory.clone()), run.name.clone());
        self.prompt = Prompt::Busy(format!("resuming {name}"));
        vec![effect]
    }

    fn jump(&mut self, jump: Jump) {
        // The rows of a 24-line screen: the list itself does not know its drawn height.
        const PAGE: usize = 10;
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
    fn on_typed(&mut self, event: KeyEvent) -> Vec<Effect> {
        let Prompt::Start(line) = &mut self.prompt else { return Vec::new() };
        match (event.code, event.modifiers & !KeyModifiers::SHIFT) {
            (KeyCode::Char('c'), KeyModifiers::CONTROL) | (KeyCode::Esc, _) => {
                self.prompt = Prompt::None
            }
            (KeyCode::Char('u'), KeyModifiers::CONTROL) => line.clear(),
            (KeyCode::Char(char), KeyModifiers::NONE) if line.chars().count() < LONGEST => {
                line.push(char)
            }
            (KeyCode::Backspace, _) => drop(line.pop()),
            (KeyCode::Enter, _) if self.typing.began_after(self.asked_at) => {
                let config =
                    if line.trim().is_empty() { "demo".to_owned() } else { line.trim().to_owned() };
                self.prompt = Prompt::Busy(format!("starting {config}"));
                return vec![Effect::Start(config)];
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

fn help_scrolled(scroll: usize, action: Option<Action>) -> usize {
    let action = match action {
        Some(Action::Select(Jump::Up | Jump::PageUp)) => Some(Action::ScrollUp),
        Some(Action::Select(Jump::Down | Jump::PageDown)) => Some(Action::ScrollDown),
        other => other,
    };
    scrolled(scroll, action, bindings(ScreenKind::Home).count())
}
