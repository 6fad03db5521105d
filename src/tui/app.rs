//! The state of the client and every way it changes: the list of runs, or one run over it.
//!
//! [`App::update`] is a plain function of state and message: no clock, no terminal, no sockets. Side effects are returned
//! as [`Effect`]s. The time is that of the last [`Msg::Clock`]. Start at [`App`].

use std::time::Duration;

use crossterm::event::KeyEvent;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::Feed;
use crate::run::{RunCommand, RunDirectory, RunSummary};
use crate::tui::home_screen::HomeScreen;
use crate::tui::run_screen::{Access, RunScreen};
use crate::tui::theme::Background;

/// The state of the client.
#[derive(Debug, Clone)]
pub struct App {
    /// What is shown.
    pub screen: Screen,
    ids: CommandIds,
    zone: TimeZone,
}

/// What is shown.
#[derive(Debug, Clone)]
pub enum Screen {
    /// The list of runs.
    Home(Box<HomeScreen>),
    /// One run, and the list that leaving it leads back to.
    Run(Box<RunScreen>, Option<Box<HomeScreen>>),
}

/// Command ids of one client, unique among all clients of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandIds {
    prefix: String,
    num_given: u64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A key was pressed.
    Key(KeyEvent),
    /// A message from the shown run.
    Feed(Feed),
    /// Time since the client started.
    Clock(Duration),
    /// The terminal was resized, or this client was continued after a suspension.
    Resized,
    /// The list of runs was read.
    Runs(RunList),
    /// The terminal reported its background.
    Background(Background),
    /// Starting or resuming a run has succeeded or failed.
    Opened(Result<RunDirectory, Refusal>),
}

/// The runs as they were at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RunList {
    /// Those that are alive first, then newest first.
    pub runs: Vec<RunSummary>,
    /// When the list was read.
    pub at: Timestamp,
}

/// Why a run was not started or resumed; raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What failed.
    pub message: String,
    /// What the user can do next.
    pub hint: Option<String>,
}

/// A side effect to perform outside of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a command to the engine of the shown run.
    Send {
        /// Id of the command in the answers.
        id: String,
        /// Requested command.
        command: RunCommand,
    },
    /// Leave the shown run, or the program; runs continue.
    Detach,
    /// Suspend this client.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// Read the list of runs.
    List,
    /// Listen to a run.
    Listen(RunDirectory, Access),
    /// Stop listening to the run.
    Unlisten,
    /// Resume a run, then send [`Msg::Opened`].
    Resume(RunDirectory),
    /// Start the configuration of this name or path, then send [`Msg::Opened`].
    Start(String),
}

impl CommandIds {
    /// Ids for the client with the unique number `client`.
    #[must_use]
    pub fn new(client: u64) -> Self {
        Self { prefix: format!("{client}-key-"), num_given: 0 }
    }

    /// The next unused id.
    pub(crate) fn next(&mut self) -> String {
        self.num_given += 1;
        format!("{}{}", self.prefix, self.num_given)
    }

    /// Whether `id` is one of this client.
    pub(crate) fn is_own(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix).and_then(|number| number.parse().ok()).is_some_and(|number: u64| (1..=self.num_given).contains(&number))
    }
}

impl App {
    /// A client of one run, as the client of this number.
    #[must_use]
    pub fn of_run(run: RunScreen, client: u64) -> Self {
        let zone = run.zone.clone();
        Self { screen: Screen::Run(Box::new(run), None), ids: CommandIds::new(client), zone }
    }

    /// A client that begins with the list of runs, as the client of this number.
    #[must_use]
    pub fn of_home(home: HomeScreen, client: u64) -> Self {
        Self { screen: Screen::Home(Box::new(home)), ids: CommandIds::new(client), zone: TimeZone::UTC }
    }

    /// The same client with the times of its logs in `zone`.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        if let Screen::Run(run, _) = &mut self.screen {
            run.zone = zone.clone();
        }
        Self { zone, ..self }
    }

    /// Changes the state by `msg` and returns the effects to perform.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let effects = match (&mut self.screen, msg) {
            (Screen::Home(home), msg) => home.update(msg),
            // Results that the list requested before it was covered still reach it; a run that has just been started waits in it.
            (Screen::Run(_, Some(home)), msg @ (Msg::Runs(_) | Msg::Opened(_))) => {
                home.update(msg);
                Vec::new()
            }
            (Screen::Run(run, _), msg) => run.update(msg, &mut self.ids),
        };
        effects.into_iter().flat_map(|effect| self.moved(effect)).collect()
    }

    /// When the screen changes next without any message, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.screen {
            Screen::Home(home) => home.next_wake(),
            Screen::Run(run, _) => run.next_wake(),
        }
    }

    /// Changes the screen if `effect` does so; returns the effects that are left to perform.
    fn moved(&mut self, effect: Effect) -> Vec<Effect> {
        match (&mut self.screen, effect) {
            (Screen::Home(home), Effect::Listen(directory, access)) => {
                let mut run = RunScreen::new(directory.name(), access, home.theme);
                (run.is_from_home, run.now, run.last_message) = (true, home.now, home.now);
                run.zone = self.zone.clone();
                self.screen = Screen::Run(Box::new(run), Some(home.clone()));
                vec![Effect::Listen(directory, access)]
            }
            (Screen::Run(run, home @ Some(_)), Effect::Detach) => {
                let (theme, now) = (run.theme, run.now);
                let Some(mut home) = home.take() else { return Vec::new() };
                home.theme = theme;
                let mut effects = vec![Effect::Unlisten];
                effects.extend(home.update(Msg::Clock(now)));
                self.screen = Screen::Home(home);
                effects
            }
            (_, effect) => vec![effect],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_are_counted_per_client_and_recognised() {
        let (mut mine, mut other) = (CommandIds::new(7), CommandIds::new(71));
        assert_eq!((mine.next().as_str(), mine.next().as_str(), other.next().as_str()), ("7-key-1", "7-key-2", "71-key-1"));
        assert!(mine.is_own("7-key-2"));
        for foreign in ["71-key-1", "7-key-3", "7-key-0", "7-1", "7-key-", "c1"] {
            assert!(!mine.is_own(foreign), "{foreign}");
        }
    }
}
