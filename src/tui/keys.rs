//! The key table: the keys of each screen. Dispatch, help and footer are all derived from it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A kind of screen, for its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScreenKind {
    /// The list of runs.
    Home,
    /// A run that can be controlled.
    Run,
    /// A run that is only read.
    View,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
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
    /// Detach from the run, or quit; runs continue.
    Detach,
    /// Show the keys.
    Help,
    /// Show plan and decisions of the run.
    About,
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
    /// Close the open overlay.
    Back,
    /// Scroll the log up.
    ScrollUp,
    /// Scroll the log down.
    ScrollDown,
    /// Show rates or mean |x| in the activation strip.
    ToggleStrip,
    /// Braille or ASCII.
    ToggleMarkers,
    /// Colors for a dark or a light background.
    ToggleBackground,
    /// Redraw the screen.
    Redraw,
    /// Suspend this client.
    Suspend,
    /// Open the selected run.
    Open,
    /// Resume the selected run.
    Resume,
    /// Ask which configuration to start.
    Start,
    /// Select another run.
    Select(Jump),
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

/// A row of the key table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Screens on which it is bound.
    pub screens: &'static [ScreenKind],
    /// Keys that trigger it.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// Action.
    pub action: Action,
    /// Key and label in the footer, if shown there.
    pub hint: Option<(&'static str, &'static str)>,
    /// The keys as shown in the help; empty if the help of the previous row covers this one.
    pub label: &'static str,
    /// Text in the help.
    pub help: &'static str,
}

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

const HOME: &[ScreenKind] = &[ScreenKind::Home];
const RUN: &[ScreenKind] = &[ScreenKind::Run];
const VIEW: &[ScreenKind] = &[ScreenKind::View];
const SHOWN: &[ScreenKind] = &[ScreenKind::Run, ScreenKind::View];
const ALL: &[ScreenKind] = &[ScreenKind::Home, ScreenKind::Run, ScreenKind::View];

/// All keys, in the order of the help; the footer shows as many hints as fit, in this order.
pub const BINDINGS: &[Binding] = &[
    key(HOME, &[(KeyCode::Enter, NONE)], Action::Open, "Enter", "open the selected run")
        .hint("Enter", "open"),
    key(HOME, &[(KeyCode::Char('r'), NONE)], Action::Resume, "r", "resume the selected run")
        .hint("r", "resume"),
    key(HOME, &[(KeyCode::Char('n'), NONE)], Action::Start, "n", "start a new run")
        .hint("n", "new"),
    key(
        HOME,
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        Action::Detach,
        "q, Ctrl-C",
        "quit; runs continue",
    )
    .hint("q", "quit"),
    key(
        RUN,
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        Action::Detach,
        "q, Ctrl-C",
        "detach; the run continues",
    )
    .hint("q", "detach"),
    key(
        VIEW,
        &[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)],
        Action::Detach,
        "q, Ctrl-C",
        "quit",
    )
    .hint("q", "quit"),
    key(RUN, &[(KeyCode::Char(' '), NONE)], Action::TogglePause, "space", "pause or resume")
        .hint("space", "pause"),
    key(RUN, &[(KeyCode::Char('c'), NONE)], Action::Checkpoint, "c", "save a checkpoint now")
        .hint("c", "checkpoint"),
    key(
        RUN,
        &[(KeyCode::Char('S'), NONE)],
        Action::Stop,
        "S",
        "stop after a checkpoint (asks first)",
    )
    .hint("S", "stop"),
    key(
        ALL,
        &[(KeyCode::Char('?'), NONE), (KeyCode::F(1), NONE)],
        Action::Help,
        "?, F1",
        "show or hide these keys",
    )
    .hint("?", "help"),
    key(RUN, &[(KeyCode::Char('e'), NONE)], Action::Evaluate, "e", "measure the token loss now")
        .hint("e", "evaluate"),
    key(RUN, &[(KeyCode::Char('g'), NONE)], Action::Sample, "g", "generate samples now")
        .hint("g", "sample"),
    key(
        SHOWN,
        &[(KeyCode::Char('z'), NONE), (KeyCode::Enter, NONE)],
        Action::Zoom,
        "z, Enter",
        "show the focused pane alone, or all",
    )
    .hint("z", "zoom"),
    key(SHOWN, &[(KeyCode::Tab, NONE)], Action::NextPane, "Tab", "focus the next pane")
        .hint("Tab", "pane"),
    key(
        SHOWN,
        &[(KeyCode::BackTab, NONE)],
        Action::PreviousPane,
        "Shift-Tab",
        "focus the previous pane",
    ),
    key(
        SHOWN,
        &[(KeyCode::Char('1'), NONE)],
        Action::Focus(0),
        "1 to 5",
        "focus a pane by its number",
    ),
    key(SHOWN, &[(KeyCode::Char('2'), NONE)], Action::Focus(1), "", ""),
    key(SHOWN, &[(KeyCode::Char('3'), NONE)], Action::Focus(2), "", ""),
    key(SHOWN, &[(KeyCode::Char('4'), NONE)], Action::Focus(3), "", ""),
    key(SHOWN, &[(KeyCode::Char('5'), NONE)], Action::Focus(4), "", ""),
    key(SHOWN, &[(KeyCode::Char('l'), NONE)], Action::ZoomLog, "l", "show the log alone, or all")
        .hint("l", "log"),
    key(
        SHOWN,
        &[(KeyCode::Up, NONE), (KeyCode::PageUp, NONE)],
        Action::ScrollUp,
        "Up, PageUp",
        "scroll the log or these keys up",
    ),
    key(
        SHOWN,
        &[(KeyCode::Down, NONE), (KeyCode::PageDown, NONE)],
        Action::ScrollDown,
        "Down, PageDown",
        "scroll the log or these keys down",
    ),
    key(
        SHOWN,
        &[(KeyCode::Char('a'), NONE)],
        Action::ToggleStrip,
        "a",
        "activation strip: rate or mean |x|",
    )
    .hint("a", "rate/mean"),
    key(SHOWN, &[(KeyCode::Char('i'), NONE)], Action::About, "i", "plan and decisions of this run")
        .hint("i", "about"),
    key(
        HOME,
        &[(KeyCode::Up, NONE), (KeyCode::Char('k'), NONE)],
        Action::Select(Jump::Up),
        "Up, k",
        "select the run above",
    ),
    key(
        HOME,
        &[(KeyCode::Down, NONE), (KeyCode::Char('j'), NONE)],
        Action::Select(Jump::Down),
        "Down, j",
        "select the run below",
    ),
    key(HOME, &[(KeyCode::PageUp, NONE)], Action::Select(Jump::PageUp), "PageUp", "one screen up"),
    key(
        HOME,
        &[(KeyCode::PageDown, NONE)],
        Action::Select(Jump::PageDown),
        "PageDown",
        "one screen down",
    ),
    key(
        HOME,
        &[(KeyCode::Home, NONE)],
        Action::Select(Jump::First),
        "Home",
        "select the first run",
    ),
    key(HOME, &[(KeyCode::End, NONE)], Action::Select(Jump::Last), "End", "select the last run"),
    key(
        ALL,
        &[(KeyCode::Char('M'), NONE)],
        Action::ToggleMarkers,
        "M",
        "draw with Braille dots or ASCII",
    ),
    key(
        ALL,
        &[(KeyCode::Char('t'), NONE)],
        Action::ToggleBackground,
        "t",
        "colors for a dark or light background",
    ),
    key(ALL, &[(KeyCode::Char('l'), CTRL)], Action::Redraw, "Ctrl-L", "redraw the screen"),
    key(
        RUN,
        &[(KeyCode::Char('z'), CTRL)],
        Action::Suspend,
        "Ctrl-Z",
        "suspend this client; the run continues",
    ),
    key(
        &[ScreenKind::Home, ScreenKind::View],
        &[(KeyCode::Char('z'), CTRL)],
        Action::Suspend,
        "Ctrl-Z",
        "suspend this client",
    ),
    key(ALL, &[(KeyCode::Esc, NONE)], Action::Back, "Esc", "close the dialog"),
];

/// The keys of `screen`.
pub fn bindings(screen: ScreenKind) -> impl Iterator<Item = &'static Binding> {
    BINDINGS.iter().filter(move |binding| binding.screens.contains(&screen))
}

/// The action bound to `event` on `screen`, if any; key releases are ignored.
#[must_use]
pub fn action_of(screen: ScreenKind, event: KeyEvent) -> Option<Action> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    // Terminals differ in whether they report Shift with a capital letter or a back-tab.
    let modifiers = event.modifiers & !KeyModifiers::SHIFT;
    bindings(screen)
        .find(|binding| binding.keys.contains(&(event.code, modifiers)))
        .map(|binding| binding.action)
}

const fn key(
    screens: &'static [ScreenKind],
    keys: &'static [(KeyCode, KeyModifiers)],
    action: Action,
    label: &'static str,
    help: &'static str,
) -> Binding {
    Binding { screens, keys, action, hint: None, label, help }
}

impl Action {
    /// Whether the action sends a command or starts a run; pasted text never triggers it.
    #[must_use]
    pub fn is_command(self) -> bool {
        self.steers() || matches!(self, Self::Resume | Self::Start)
    }

    /// Whether the action sends a command to the shown run.
    #[must_use]
    pub fn steers(self) -> bool {
        matches!(
            self,
            Self::TogglePause | Self::Checkpoint | Self::Evaluate | Self::Sample | Self::Stop
        )
    }
}

impl Binding {
    const fn hint(self, key: &'static str, word: &'static str) -> Self {
        Self { hint: Some((key, word)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_has_two_meanings_on_one_screen() {
        for screen in ALL {
            let mut seen = HashSet::new();
            for key in bindings(*screen).flat_map(|binding| binding.keys) {
                assert!(seen.insert(*key), "{key:?} is bound twice on {screen:?}");
            }
        }
    }

    #[test]
    fn a_capital_letter_is_found_with_and_without_shift() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(
                action_of(ScreenKind::Run, KeyEvent::new(KeyCode::Char('S'), modifiers)),
                Some(Action::Stop)
            );
        }
        assert_eq!(
            action_of(ScreenKind::Run, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)),
            Some(Action::Detach)
        );
        assert_eq!(
            action_of(ScreenKind::Run, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::ALT)),
            None
        );
    }

    #[test]
    fn a_run_that_is_only_read_has_no_keys_that_steer() {
        assert!(!bindings(ScreenKind::View).any(|binding| binding.action.is_command()));
        assert_eq!(bindings(ScreenKind::Run).filter(|binding| binding.action.steers()).count(), 5);
    }
}
