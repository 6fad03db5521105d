//! The key tables: the keys of each kind of screen. Dispatch, help and footer are all derived from
//! them.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::tui::message::Access;

/// What a key of the list of runs does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HomeAction {
    /// Open the selected run.
    Open,
    /// Resume the selected run.
    Resume,
    /// Ask which configuration to start.
    Start,
    /// Select another run, or scroll the open help.
    Select(Jump),
    /// Close the open help or message.
    Back,
    /// Quit; runs continue.
    Quit,
    /// Show the keys.
    Help,
    /// Braille or ASCII.
    ToggleMarkers,
    /// Colors for a dark or a light background.
    ToggleBackground,
    /// Redraw the screen.
    Redraw,
    /// Suspend this client.
    Suspend,
}

/// What a key of the screen of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAction {
    /// Send a command to the run, or ask for confirmation first.
    Steer(Steer),
    /// Change what the screen shows of the run.
    Look(Look),
    /// Scroll the log or the open help.
    Scroll(Scroll),
    /// Show plan and decisions of the run.
    About,
    /// Close the open overlay.
    Back,
    /// Detach from the run, which continues.
    Detach,
    /// Show the keys.
    Help,
    /// Redraw the screen.
    Redraw,
    /// Suspend this client.
    Suspend,
}

/// A command to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Pause or resume.
    TogglePause,
    /// Save now.
    Checkpoint,
    /// Measure the token loss (K = 1) now.
    Evaluate,
    /// Generate samples now.
    Sample,
    /// Ask for confirmation to stop.
    Stop,
}

/// What the screen of a run shows, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Show the log in full.
    ZoomLog,
    /// Focus the next pane.
    NextPane,
    /// Focus the previous pane.
    PreviousPane,
    /// Show the focused pane alone, or all panes again.
    Zoom,
    /// Focus a pane by its number, counted from 0.
    Focus(usize),
    /// Show rates or mean |x| in the activation strip.
    ToggleStrip,
    /// Braille or ASCII.
    ToggleMarkers,
    /// Colors for a dark or a light background.
    ToggleBackground,
}

/// One line up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scroll {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// Where the selection moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    /// The one above.
    Up,
    /// The one below.
    Down,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// First run of the list.
    First,
    /// Last run of the list.
    Last,
}

/// A row of a key table.
#[derive(Debug, Clone, Copy)]
pub struct Binding<A> {
    /// Keys that trigger it.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// Action.
    pub action: A,
    /// Key and label in the footer, if shown there.
    pub hint: Option<(&'static str, &'static str)>,
    /// The keys as shown in the help; empty if the help of the previous row covers this one.
    pub label: &'static str,
    /// Text in the help.
    pub help: &'static str,
    /// If set, it only works with this access to the run.
    only: Option<Access>,
}

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

/// The keys of the list of runs, in the order of the help; the footer shows as many hints as fit, in
/// this order.
pub const HOME_KEYS: &[Binding<HomeAction>] = &[
    key(&[(KeyCode::Enter, NONE)], HomeAction::Open, "Enter", "open the selected run")
        .hint("Enter", "open"),
    key(&[(KeyCode::Char('r'), NONE)], HomeAction::Resume, "r", "resume the selected run")
        .hint("r", "resume"),
    key(&[(KeyCode::Char('n'), NONE)], HomeAction::Start, "n", "start a new run").hint("n", "new"),
    key(
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        HomeAction::Quit,
        "q, Ctrl-C",
        "quit; runs continue",
    )
    .hint("q", "quit"),
    key(
        &[(KeyCode::Char('?'), NONE), (KeyCode::F(1), NONE)],
        HomeAction::Help,
        "?, F1",
        "show or hide these keys",
    )
    .hint("?", "help"),
    key(
        &[(KeyCode::Up, NONE), (KeyCode::Char('k'), NONE)],
        HomeAction::Select(Jump::Up),
        "Up, k",
        "select the run above",
    ),
    key(
        &[(KeyCode::Down, NONE), (KeyCode::Char('j'), NONE)],
        HomeAction::Select(Jump::Down),
        "Down, j",
        "select the run below",
    ),
    key(&[(KeyCode::PageUp, NONE)], HomeAction::Select(Jump::PageUp), "PageUp", "one screen up"),
    key(
        &[(KeyCode::PageDown, NONE)],
        HomeAction::Select(Jump::PageDown),
        "PageDown",
        "one screen down",
    ),
    key(&[(KeyCode::Home, NONE)], HomeAction::Select(Jump::First), "Home", "select the first run"),
    key(&[(KeyCode::End, NONE)], HomeAction::Select(Jump::Last), "End", "select the last run"),
    key(
        &[(KeyCode::Char('M'), NONE)],
        HomeAction::ToggleMarkers,
        "M",
        "draw with Braille dots or ASCII",
    ),
    key(
        &[(KeyCode::Char('t'), NONE)],
        HomeAction::ToggleBackground,
        "t",
        "colors for a dark or light background",
    ),
    key(&[(KeyCode::Char('l'), CTRL)], HomeAction::Redraw, "Ctrl-L", "redraw the screen"),
    key(&[(KeyCode::Char('z'), CTRL)], HomeAction::Suspend, "Ctrl-Z", "suspend this client"),
    key(&[(KeyCode::Esc, NONE)], HomeAction::Back, "Esc", "close the dialog"),
];

/// The keys of the screen of a run, in the same order; [`run_keys`] selects those that work.
pub const RUN_KEYS: &[Binding<RunAction>] = &[
    key(
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        RunAction::Detach,
        "q, Ctrl-C",
        "detach; the run continues",
    )
    .hint("q", "detach")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        RunAction::Detach,
        "q, Ctrl-C",
        "quit",
    )
    .hint("q", "quit")
    .only(Access::Read),
    key(
        &[(KeyCode::Char(' '), NONE)],
        RunAction::Steer(Steer::TogglePause),
        "space",
        "pause or resume",
    )
    .hint("space", "pause")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('c'), NONE)],
        RunAction::Steer(Steer::Checkpoint),
        "c",
        "save a checkpoint now",
    )
    .hint("c", "checkpoint")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('S'), NONE)],
        RunAction::Steer(Steer::Stop),
        "S",
        "stop after a checkpoint (asks first)",
    )
    .hint("S", "stop")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('?'), NONE), (KeyCode::F(1), NONE)],
        RunAction::Help,
        "?, F1",
        "show or hide these keys",
    )
    .hint("?", "help"),
    key(
        &[(KeyCode::Char('e'), NONE)],
        RunAction::Steer(Steer::Evaluate),
        "e",
        "measure the token loss now",
    )
    .hint("e", "evaluate")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('g'), NONE)],
        RunAction::Steer(Steer::Sample),
        "g",
        "generate samples now",
    )
    .hint("g", "sample")
    .only(Access::Steer),
    key(
        &[(KeyCode::Char('z'), NONE), (KeyCode::Enter, NONE)],
        RunAction::Look(Look::Zoom),
        "z, Enter",
        "show the focused pane alone, or all",
    )
    .hint("z", "zoom"),
    key(&[(KeyCode::Tab, NONE)], RunAction::Look(Look::NextPane), "Tab", "focus the next pane")
        .hint("Tab", "pane"),
    key(
        &[(KeyCode::BackTab, NONE)],
        RunAction::Look(Look::PreviousPane),
        "Shift-Tab",
        "focus the previous pane",
    ),
    key(
        &[(KeyCode::Char('1'), NONE)],
        RunAction::Look(Look::Focus(0)),
        "1 to 5",
        "focus a pane by its number",
    ),
    key(&[(KeyCode::Char('2'), NONE)], RunAction::Look(Look::Focus(1)), "", ""),
    key(&[(KeyCode::Char('3'), NONE)], RunAction::Look(Look::Focus(2)), "", ""),
    key(&[(KeyCode::Char('4'), NONE)], RunAction::Look(Look::Focus(3)), "", ""),
    key(&[(KeyCode::Char('5'), NONE)], RunAction::Look(Look::Focus(4)), "", ""),
    key(
        &[(KeyCode::Char('l'), NONE)],
        RunAction::Look(Look::ZoomLog),
        "l",
        "show the log alone, or all",
    )
    .hint("l", "log"),
    key(
        &[(KeyCode::Up, NONE), (KeyCode::PageUp, NONE)],
        RunAction::Scroll(Scroll::Up),
        "Up, PageUp",
        "scroll the log or these keys up",
    ),
    key(
        &[(KeyCode::Down, NONE), (KeyCode::PageDown, NONE)],
        RunAction::Scroll(Scroll::Down),
        "Down, PageDown",
        "scroll the log or these keys down",
    ),
    key(
        &[(KeyCode::Char('a'), NONE)],
        RunAction::Look(Look::ToggleStrip),
        "a",
        "activation strip: rate or mean |x|",
    )
    .hint("a", "rate/mean"),
    key(&[(KeyCode::Char('i'), NONE)], RunAction::About, "i", "plan and decisions of this run")
        .hint("i", "about"),
    key(
        &[(KeyCode::Char('M'), NONE)],
        RunAction::Look(Look::ToggleMarkers),
        "M",
        "draw with Braille dots or ASCII",
    ),
    key(
        &[(KeyCode::Char('t'), NONE)],
        RunAction::Look(Look::ToggleBackground),
        "t",
        "colors for a dark or light background",
    ),
    key(&[(KeyCode::Char('l'), CTRL)], RunAction::Redraw, "Ctrl-L", "redraw the screen"),
    key(
        &[(KeyCode::Char('z'), CTRL)],
        RunAction::Suspend,
        "Ctrl-Z",
        "suspend this client; the run continues",
    )
    .only(Access::Steer),
    key(&[(KeyCode::Char('z'), CTRL)], RunAction::Suspend, "Ctrl-Z", "suspend this client")
        .only(Access::Read),
    key(&[(KeyCode::Esc, NONE)], RunAction::Back, "Esc", "close the dialog"),
];

/// The keys of a run with this access.
pub fn run_keys(access: Access) -> impl Iterator<Item = &'static Binding<RunAction>> {
    RUN_KEYS.iter().filter(move |binding| binding.only.is_none_or(|only| only == access))
}

/// The action bound to `event`, if any.
#[must_use]
pub fn action_of<A: Copy + 'static>(
    mut bindings: impl Iterator<Item = &'static Binding<A>>,
    event: KeyEvent,
) -> Option<A> {
    // Terminals differ in whether they report Shift with a capital letter or a back-tab.
    let modifiers = event.modifiers & !KeyModifiers::SHIFT;
    bindings
        .find(|binding| binding.keys.contains(&(event.code, modifiers)))
        .map(|binding| binding.action)
}

const fn key<A: Copy>(
    keys: &'static [(KeyCode, KeyModifiers)],
    action: A,
    label: &'static str,
    help: &'static str,
) -> Binding<A> {
    Binding { keys, action, hint: None, label, help, only: None }
}

impl<A: Copy> Binding<A> {
    const fn hint(self, key: &'static str, word: &'static str) -> Self {
        Self { hint: Some((key, word)), ..self }
    }

    const fn only(self, access: Access) -> Self {
        Self { only: Some(access), ..self }
    }
}

impl HomeAction {
    /// Whether the action starts a run; pasted text never triggers it.
    #[must_use]
    pub fn is_command(self) -> bool {
        matches!(self, Self::Resume | Self::Start)
    }
}

impl RunAction {
    /// Whether the action sends a command to the run; pasted text never triggers it.
    #[must_use]
    pub fn is_command(self) -> bool {
        matches!(self, Self::Steer(_))
    }
}

impl Scroll {
    /// The position one line from `at`, of at most `limit`.
    pub(crate) fn from(self, at: usize, limit: usize) -> usize {
        match self {
            Self::Up => at.saturating_sub(1),
            Self::Down => (at + 1).min(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn assert_unambiguous<A: Copy + 'static>(bindings: impl Iterator<Item = &'static Binding<A>>) {
        let mut seen = HashSet::new();
        for key in bindings.flat_map(|binding| binding.keys) {
            assert!(seen.insert(*key), "{key:?} is bound twice");
        }
    }

    #[test]
    fn no_key_has_two_meanings_on_one_screen() {
        assert_unambiguous(HOME_KEYS.iter());
        for access in [Access::Steer, Access::Read] {
            assert_unambiguous(run_keys(access));
        }
    }

    #[test]
    fn a_capital_letter_is_found_with_and_without_shift() {
        let action = |code, modifiers| {
            action_of(run_keys(Access::Steer), KeyEvent::new(KeyCode::Char(code), modifiers))
        };
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(action('S', modifiers), Some(RunAction::Steer(Steer::Stop)));
        }
        assert_eq!(action('c', KeyModifiers::CONTROL), Some(RunAction::Detach));
        assert_eq!(action('c', KeyModifiers::ALT), None);
    }

    #[test]
    fn a_run_that_is_only_read_has_no_keys_that_steer() {
        let commands =
            |access| run_keys(access).filter(|binding| binding.action.is_command()).count();
        assert_eq!((commands(Access::Read), commands(Access::Steer)), (0, 5));
    }
}
