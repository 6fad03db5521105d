//! The state of the client and all its transitions: a stack of screens, of which the topmost is
//! shown and gets the keys.
//!
//! A run is followed for as long as a screen of the stack shows it: a covered screen stays up to
//! date, a closed one drops its link. [`App::update`] is a pure function of state and message: no
//! clock, no terminal, no sockets. Side effects are returned as [`Effect`]s. The current time is
//! that of the last [`Msg::Clock`]. Start at [`App`].

use std::mem;
use std::time::Duration;

use crossterm::event::{KeyEvent, KeyEventKind};
use jiff::tz::TimeZone;

use crate::control::Feed;
use crate::record::RunDirectory;
use crate::tui::home_screen::HomeScreen;
use crate::tui::message::{Access, CommandIds, Effect, Msg, Request, RunId};
use crate::tui::run_screen::RunScreen;
use crate::tui::theme::Theme;

/// The state of the client.
#[derive(Debug, Clone)]
pub struct App {
    /// The shown screen.
    pub screen: Screen,
    /// The screens that it covers, the lowest first.
    covered: Vec<Screen>,
    ids: CommandIds,
    next_run: RunId,
    zone: TimeZone,
    now: Duration,
}

/// A screen.
#[derive(Debug, Clone)]
pub enum Screen {
    /// The list of runs.
    Home(Box<HomeScreen>),
    /// A run.
    Run(Box<RunScreen>),
}

impl App {
    /// A client for one run, with the number `client`.
    #[must_use]
    pub fn of_run(run: RunScreen, client: u64) -> Self {
        let (next_run, zone) = (run.id.next(), run.zone.clone());
        Self { next_run, zone, ..Self::new(Screen::Run(Box::new(run)), client) }
    }

    /// A client that starts with the list of runs, with the number `client`.
    #[must_use]
    pub fn of_home(home: HomeScreen, client: u64) -> Self {
        Self::new(Screen::Home(Box::new(home)), client)
    }

    fn new(screen: Screen, client: u64) -> Self {
        Self {
            screen,
            covered: Vec::new(),
            ids: CommandIds::new(client),
            next_run: RunId::FIRST,
            zone: TimeZone::UTC,
            now: Duration::ZERO,
        }
    }

    /// The same client with log times in `zone`.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        if let Screen::Run(run) = &mut self.screen {
            run.zone = zone.clone();
        }
        Self { zone, ..self }
    }

    /// Updates the state with `msg` and returns the effects to perform.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let requests = match msg {
            Msg::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
            Msg::Key(event) => self.screen.on_key(event, &mut self.ids),
            Msg::Clock(now) => {
                self.now = now;
                self.screen.on_clock(now)
            }
            Msg::Feed(id, feed) => self.on_feed(id, feed),
            Msg::Runs(list) => {
                if let Some(home) = self.home_mut() {
                    home.on_list(list);
                }
                Vec::new()
            }
            Msg::Opened(opened) => {
                self.home_mut().map_or_else(Vec::new, |home| home.on_opened(opened))
            }
            Msg::Background(background) => {
                self.screens_mut().for_each(|screen| screen.theme_mut().background = background);
                Vec::new()
            }
            Msg::Resized => Vec::new(),
        };
        requests.into_iter().flat_map(|request| self.obey(request)).collect()
    }

    /// Time of the next change of the screen without a message, on the client's clock.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        match &self.screen {
            Screen::Home(home) => home.next_wake(),
            Screen::Run(run) => run.next_wake(),
        }
    }

    /// The list of runs, if it is shown.
    pub(crate) fn shown_home(&self) -> Option<&HomeScreen> {
        match &self.screen {
            Screen::Home(home) => Some(home),
            Screen::Run(_) => None,
        }
    }

    /// The run that the client was started for, if it was started for one.
    pub(crate) fn first_run(&self) -> Option<&RunScreen> {
        match self.covered.first().unwrap_or(&self.screen) {
            Screen::Home(_) => None,
            Screen::Run(run) => Some(run),
        }
    }

    fn screens_mut(&mut self) -> impl Iterator<Item = &mut Screen> {
        self.covered.iter_mut().chain([&mut self.screen])
    }

    fn home_mut(&mut self) -> Option<&mut HomeScreen> {
        self.screens_mut().find_map(|screen| match screen {
            Screen::Home(home) => Some(home.as_mut()),
            Screen::Run(_) => None,
        })
    }

    /// Passes a message to the screen of its run; a screen that was closed needs none.
    fn on_feed(&mut self, id: RunId, feed: Feed) -> Vec<Request> {
        let mut screens = self.covered.iter_mut().chain([&mut self.screen]);
        let run = screens.find_map(|screen| match screen {
            Screen::Run(run) if run.id == id => Some(run),
            Screen::Home(_) | Screen::Run(_) => None,
        });
        run.map_or_else(Vec::new, |run| {
            run.on_clock(self.now);
            run.on_feed(feed, &self.ids)
        })
    }

    /// Does what a screen asked for; returns the effects of it.
    fn obey(&mut self, request: Request) -> Vec<Effect> {
        match request {
            Request::Effect(effect) => vec![effect],
            Request::Open(directory, access) => vec![self.open(directory, access)],
            Request::Close => self.close(),
        }
    }

    fn open(&mut self, directory: RunDirectory, access: Access) -> Effect {
        let id = self.next_run;
        self.next_run = id.next();
        let mut run = RunScreen::new(id, directory.name(), access, *self.screen.theme_mut());
        (run.is_above_another, run.now, run.last_message) = (true, self.now, self.now);
        run.zone = self.zone.clone();
        self.covered.push(mem::replace(&mut self.screen, Screen::Run(Box::new(run))));
        Effect::Listen(id, directory, access)
    }

    /// Closes the shown screen; without another one below it, the client exits.
    fn close(&mut self) -> Vec<Effect> {
        let Some(uncovered) = self.covered.pop() else { return vec![Effect::Leave] };
        let mut closed = mem::replace(&mut self.screen, uncovered);
        *self.screen.theme_mut() = *closed.theme_mut();
        let unlisten = match closed {
            Screen::Run(run) => Some(Effect::Unlisten(run.id)),
            Screen::Home(_) => None,
        };
        let requests = self.screen.on_clock(self.now);
        let effects = requests.into_iter().flat_map(|request| self.obey(request));
        unlisten.into_iter().chain(effects).collect()
    }
}

impl Screen {
    fn on_key(&mut self, event: KeyEvent, ids: &mut CommandIds) -> Vec<Request> {
        match self {
            Self::Home(home) => home.on_key(event),
            Self::Run(run) => run.on_key(event, ids),
        }
    }

    fn on_clock(&mut self, now: Duration) -> Vec<Request> {
        match self {
            Self::Home(home) => home.on_clock(now),
            Self::Run(run) => {
                run.on_clock(now);
                Vec::new()
            }
        }
    }

    fn theme_mut(&mut self) -> &mut Theme {
        match self {
            Self::Home(home) => &mut home.theme,
            Self::Run(run) => &mut run.theme,
        }
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyModifiers};

    use super::*;
    use crate::record::RunCommand;
    use crate::tui::theme::Markers;

    fn history(step: u64) -> Feed {
        Feed::Snapshot(Box::new(crate::record::History { last_seq: step, ..Default::default() }))
    }

    #[test]
    fn a_covered_run_stays_up_to_date_and_a_closed_one_drops_its_link() {
        let theme = Theme::plain(Markers::Ascii);
        let mut app =
            App::of_run(RunScreen::new(RunId::FIRST, "a".into(), Access::Steer, theme), 7);
        let above = app.open(RunDirectory::new("/runs/b"), Access::Steer);
        let Effect::Listen(second, ..) = above else { panic!("{above:?}") };
        assert_ne!(second, RunId::FIRST);
        // Both are heard, each by its own screen.
        app.update(Msg::Clock(Duration::from_secs(5)));
        for (id, step) in [(RunId::FIRST, 11), (second, 12)] {
            assert_eq!(app.update(Msg::Feed(id, history(step))), []);
        }
        let key = |code| Msg::Key(KeyEvent::new(KeyCode::Char(code), KeyModifiers::NONE));
        let sent = |run, number| Effect::Send {
            run,
            id: format!("7-key-{number}"),
            command: RunCommand::Checkpoint,
        };
        assert_eq!(app.update(key('c')), [sent(second, 1)]);
        app.update(Msg::Clock(Duration::from_secs(6)));
        assert_eq!(app.update(key('q')), [Effect::Unlisten(second)]);
        let Screen::Run(run) = &app.screen else { panic!("the first run is shown") };
        assert_eq!((run.history.last_seq, run.last_message), (11, Duration::from_secs(5)));
        assert_eq!(app.update(Msg::Feed(second, history(13))), [], "its screen is closed");
        assert_eq!(app.update(key('c')), [sent(RunId::FIRST, 2)]);
        assert_eq!(app.update(key('q')), [Effect::Leave]);
    }
}
