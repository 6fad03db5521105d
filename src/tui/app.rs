//! The state of the client and every way it changes: the list of runs, or one run over it.
//!
//! [`App::update`] is a plain function of state and message: no clock, no terminal, no sockets. What is to be done outside
//! comes back as [`Effect`]s. Time is what [`Msg::Clock`] said last. Start at [`App`].

use std::time::Duration;

use crossterm::event::KeyEvent;
use jiff::Timestamp;

use crate::control::Feed;
use crate::run::{RunCommand, RunDirectory, RunSummary};
use crate::tui::home_screen::HomeScreen;
use crate::tui::run_screen::{Access, RunScreen};

/// The state of the client.
#[derive(Debug, Clone)]
pub struct App {
    /// What is shown.
    pub screen: Screen,
    ids: CommandIds,
}

/// What is shown.
#[derive(Debug, Clone)]
pub enum Screen {
    /// The list of runs.
    Home(Box<HomeScreen>),
    /// One run, and the list that leaving it leads back to.
    Run(Box<RunScreen>, Option<Box<HomeScreen>>),
}

/// Names for the commands of one client: no other client of the same run has them.
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
    /// The shown run said something.
    Feed(Feed),
    /// Time since the client started.
    Clock(Duration),
    /// The terminal has another size, or this client is back from a suspension.
    Resized,
    /// The list of runs was read.
    Runs(RunList),
    /// A run was started or resumed, or could not be.
    Opened(Result<RunDirectory, Refusal>),
}

/// The runs as they were at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct RunList {
    /// Those that are alive first, then newest first.
    pub runs: Vec<RunSummary>,
    /// The moment, for ages.
    pub at: Timestamp,
}

/// Why a run was not started or resumed; raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What and where.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Something to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell the engine of the shown run.
    Send {
        /// The command's name in the answers.
        id: String,
        /// What is asked.
        command: RunCommand,
    },
    /// Leave the shown run, or the program; what runs goes on.
    Detach,
    /// Suspend this client.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// Read the list of runs.
    List,
    /// Listen to a run.
    Listen(RunDirectory, Access),
    /// Listen to the run no longer.
    Unlisten,
    /// Go on with a run, then say [`Msg::Opened`].
    Resume(RunDirectory),
    /// Start the configuration of this name or path, then say [`Msg::Opened`].
    Start(String),
}

impl CommandIds {
    /// Names for the client with the number `client`, which no other client has.
    #[must_use]
    pub fn new(client: u64) -> Self {
        Self { prefix: format!("{client}-key-"), num_given: 0 }
    }

    /// A name that was not given before.
    pub(crate) fn next(&mut self) -> String {
        self.num_given += 1;
        format!("{}{}", self.prefix, self.num_given)
    }

    /// Whether this client gave the name `id` to a command.
    pub(crate) fn is_own(&self, id: &str) -> bool {
        id.strip_prefix(&self.prefix).and_then(|number| number.parse().ok()).is_some_and(|number: u64| (1..=self.num_given).contains(&number))
    }
}

impl App {
    /// A client of one run, as the client of this number.
    #[must_use]
    pub fn of_run(run: RunScreen, client: u64) -> Self {
        Self { screen: Screen::Run(Box::new(run), None), ids: CommandIds::new(client) }
    }

    /// A client that begins with the list of runs, as the client of this number.
    #[must_use]
    pub fn of_home(home: HomeScreen, client: u64) -> Self {
        Self { screen: Screen::Home(Box::new(home)), ids: CommandIds::new(client) }
    }

    /// Changes the state by `msg` and returns what is to be done outside.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let effects = match (&mut self.screen, msg) {
            (Screen::Home(home), msg) => home.update(msg),
            // What the list asked for before it was covered still reaches it; a run that has just been started waits in it.
            (Screen::Run(_, Some(home)), msg @ (Msg::Runs(_) | Msg::Opened(_))) => {
                home.update(msg);
                Vec::new()
            }
            (Screen::Run(run, _), msg) => run.update(msg, &mut self.ids),
        };
        effects.into_iter().flat_map(|effect| self.moved(effect)).collect()
    }

    /// When the picture changes next although nothing happens, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.screen {
            Screen::Home(home) => home.next_wake(),
            Screen::Run(run, _) => run.next_wake(),
        }
    }

    /// Goes to another screen where `effect` leads to one; what is left of it is to be done outside.
    fn moved(&mut self, effect: Effect) -> Vec<Effect> {
        match (&mut self.screen, effect) {
            (Screen::Home(home), Effect::Listen(directory, access)) => {
                let mut run = RunScreen::new(directory.name(), access, home.theme);
                (run.is_from_home, run.now, run.heard) = (true, home.now, home.now);
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
