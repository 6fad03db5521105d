//! The state of the client and all its transitions: the list of runs, or the screen of one run.
//!
//! [`App::update`] is a pure function of state and message: no clock, no terminal, no sockets. Side
//! effects are returned as [`Effect`]s. The current time is that of the last [`Msg::Clock`]. Start
//! at [`App`].

use std::time::Duration;

use crossterm::event::KeyEvent;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::control::Feed;
use crate::record::{RunCommand, RunDirectory, RunSummary};
use crate::tui::home_screen::HomeScreen;
use crate::tui::run_screen::{Access, RunScreen};
use crate::tui::theme::Background;

/// The state of the client.
#[derive(Debug, Clone)]
pub struct App {
    /// Current screen.
    pub screen: Screen,
    ids: CommandIds,
    zone: TimeZone,
}

/// Current screen.
#[derive(Debug, Clone)]
pub enum Screen {
    /// The list of runs.
    Home(Box<HomeScreen>),
    /// The screen of a run, and the list to return to after detaching.
    Run(Box<RunScreen>, Option<Box<HomeScreen>>),
}

/// Command ids of one client, unique among all clients of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandIds {
    prefix: String,
    num_given: u64,
}

/// A message: something that happened.
#[derive(Debug, Clone)]
pub enum Msg {
    /// A key press.
    Key(KeyEvent),
    /// A message of the shown run.
    Feed(Feed),
    /// Time since the client started.
    Clock(Duration),
    /// The terminal was resized, or the client resumed after a suspension.
    Resized,
    /// The list of runs was read.
    Runs(RunList),
    /// The terminal reported its background.
    Background(Background),
    /// A run was started or resumed, or that failed.
    Opened(Result<RunDirectory, Refusal>),
}

/// The list of runs at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RunList {
    /// Running runs first, then newest first.
    pub runs: Vec<RunSummary>,
    /// Time of reading.
    pub at: Timestamp,
}

/// Why a run was not started or resumed; raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What failed.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// A side effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a command to the engine of the shown run.
    Send {
        /// Id of the command, for its answers.
        id: String,
        /// Requested command.
        command: RunCommand,
    },
    /// Detach from the shown run, or quit; runs continue.
    Detach,
    /// Suspend this client.
    Suspend,
    /// Redraw everything.
    Redraw,
    /// Read the list of runs.
    List,
    /// Follow a run.
    Listen(RunDirectory, Access),
    /// Stop following the run.
    Unlisten,
    /// Resume a run, then send [`Msg::Opened`].
    Resume(RunDirectory),
    /// Start the configuration with this name or path, then send [`Msg::Opened`].
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

    /// Whether `id` belongs to this client.
    pub(crate) fn is_own(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix)
            .and_then(|number| number.parse().ok())
            .is_some_and(|number: u64| (1..=self.num_given).contains(&number))
    }
}

impl App {
    /// A client for one run, with the number `client`.
    #[must_use]
    pub fn of_run(run: RunScreen, client: u64) -> Self {
        let zone = run.zone.clone();
        Self { screen: Screen::Run(Box::new(run), None), ids: CommandIds::new(client), zone }
    }

    /// A client that starts with the list of runs, with the number `client`.
    #[must_use]
    pub fn of_home(home: HomeScreen, client: u64) -> Self {
        Self {
            screen: Screen::Home(Box::new(home)),
            ids: CommandIds::new(client),
            zone: TimeZone::UTC,
        }
    }

    /// The same client with log times in `zone`.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        if let Screen::Run(run, _) = &mut self.screen {
            run.zone = zone.clone();
        }
        Self { zone, ..self }
    }

    /// Updates the state with `msg` and returns the effects to perform.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let effects = match (&mut self.screen, msg) {
            (Screen::Home(home), msg) => home.update(msg),
            // Results that the list requested before a run was opened still reach it; a run that
            // was just started waits in the list.
            (Screen::Run(_, Some(home)), msg @ (Msg::Runs(_) | Msg::Opened(_))) => {
                home.update(msg);
                Vec::new()
            }
            (Screen::Run(run, _), msg) => run.update(msg, &mut self.ids),
        };
        effects.into_iter().flat_map(|effect| self.moved(effect)).collect()
    }

    /// Time of the next change of the screen without a message, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.screen {
            Screen::Home(home) => home.next_wake(),
            Screen::Run(run, _) => run.next_wake(),
        }
    }

    /// Applies `effect` if it changes the screen; returns the remaining effects.
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
        assert_eq!(
            (mine.next().as_str(), mine.next().as_str(), other.next().as_str()),
            ("7-key-1", "7-key-2", "71-key-1")
        );
        assert!(mine.is_own("7-key-2"));
        for foreign in ["71-key-1", "7-key-3", "7-key-0", "7-1", "7-key-", "c1"] {
            assert!(!mine.is_own(foreign), "{foreign}");
        }
    }
}
