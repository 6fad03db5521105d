//! The key table: the one place that says which key does what. Dispatch, help and footer are read from it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key asks for on the main screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Pause, or go on.
    TogglePause,
    /// Save now.
    Checkpoint,
    /// Measure the token-level loss now.
    Evaluate,
    /// Continue the prompts now.
    Sample,
    /// Ask whether to stop.
    Stop,
    /// Leave; the run goes on.
    Detach,
    /// Show the keys.
    Help,
    /// Show what the run is.
    About,
    /// Show the log in full.
    ZoomLog,
    /// Give the focus to the next pane.
    NextPane,
    /// Give the focus to the previous pane.
    PreviousPane,
    /// Show the focused pane alone, or all again.
    Zoom,
    /// Give the focus to a pane by its number, counted from 0.
    Focus(usize),
    /// Close what is open.
    Back,
    /// Scroll the log up.
    ScrollUp,
    /// Scroll the log down.
    ScrollDown,
    /// Show rates or mean |x| in the activation strip.
    ToggleStrip,
    /// Braille or ASCII.
    ToggleMarkers,
    /// Draw everything again.
    Redraw,
    /// Suspend this client.
    Suspend,
}

/// A row of the key table.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// Keys that do it.
    pub keys: &'static [(KeyCode, KeyModifiers)],
    /// What it does.
    pub action: Action,
    /// Key and a word for the footer, if it is shown there.
    pub hint: Option<(&'static str, &'static str)>,
    /// The keys as people write them; empty if the help of the row before speaks for this one too.
    pub label: &'static str,
    /// A line for the help.
    pub help: &'static str,
}

const NONE: KeyModifiers = KeyModifiers::NONE;
const CTRL: KeyModifiers = KeyModifiers::CONTROL;

/// All keys, in the order of the help; the footer shows as many hints as fit, in this order.
pub const BINDINGS: &[Binding] = &[
    key(&[(KeyCode::Char('q'), NONE), (KeyCode::Char('c'), CTRL)], Action::Detach, Some(("q", "detach")), "q, Ctrl-C", "leave; the run goes on"),
    key(&[(KeyCode::Char(' '), NONE)], Action::TogglePause, Some(("space", "pause")), "space", "pause, or go on"),
    key(&[(KeyCode::Char('c'), NONE)], Action::Checkpoint, Some(("c", "checkpoint")), "c", "save a checkpoint now and go on"),
    key(&[(KeyCode::Char('S'), NONE)], Action::Stop, Some(("S", "stop")), "S", "stop after a checkpoint (asks first)"),
    key(&[(KeyCode::Char('?'), NONE), (KeyCode::F(1), NONE)], Action::Help, Some(("?", "help")), "?, F1", "show or hide these keys"),
    key(&[(KeyCode::Char('e'), NONE)], Action::Evaluate, Some(("e", "evaluate")), "e", "measure the token loss now"),
    key(&[(KeyCode::Char('g'), NONE)], Action::Sample, Some(("g", "sample")), "g", "continue the prompts now"),
    key(&[(KeyCode::Char('z'), NONE), (KeyCode::Enter, NONE)], Action::Zoom, Some(("z", "zoom")), "z, Enter", "show the focused pane alone, or all"),
    key(&[(KeyCode::Tab, NONE)], Action::NextPane, Some(("Tab", "pane")), "Tab", "focus the next pane"),
    key(&[(KeyCode::BackTab, NONE)], Action::PreviousPane, None, "Shift-Tab", "focus the previous pane"),
    key(&[(KeyCode::Char('1'), NONE)], Action::Focus(0), None, "1 to 5", "focus a pane by its number"),
    key(&[(KeyCode::Char('2'), NONE)], Action::Focus(1), None, "", ""),
    key(&[(KeyCode::Char('3'), NONE)], Action::Focus(2), None, "", ""),
    key(&[(KeyCode::Char('4'), NONE)], Action::Focus(3), None, "", ""),
    key(&[(KeyCode::Char('5'), NONE)], Action::Focus(4), None, "", ""),
    key(&[(KeyCode::Char('l'), NONE)], Action::ZoomLog, Some(("l", "log")), "l", "show the log alone, or all"),
    key(&[(KeyCode::Up, NONE), (KeyCode::PageUp, NONE)], Action::ScrollUp, None, "Up, PageUp", "scroll the log or this help up"),
    key(&[(KeyCode::Down, NONE), (KeyCode::PageDown, NONE)], Action::ScrollDown, None, "Down, PageDown", "scroll the log or this help down"),
    key(&[(KeyCode::Char('a'), NONE)], Action::ToggleStrip, Some(("a", "rate/mean")), "a", "activation strip: rate or mean |x|"),
    key(&[(KeyCode::Char('i'), NONE)], Action::About, Some(("i", "about")), "i", "plan and decisions of this run"),
    key(&[(KeyCode::Char('M'), NONE)], Action::ToggleMarkers, None, "M", "draw with Braille dots or ASCII"),
    key(&[(KeyCode::Char('l'), CTRL)], Action::Redraw, None, "Ctrl-L", "draw everything again"),
    key(&[(KeyCode::Char('z'), CTRL)], Action::Suspend, None, "Ctrl-Z", "suspend this client; the run goes on"),
    key(&[(KeyCode::Esc, NONE)], Action::Back, None, "Esc", "close what is open"),
];

/// What `event` asks for, if it is bound; releases of keys are not.
#[must_use]
pub fn action_of(event: KeyEvent) -> Option<Action> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    // Terminals differ in whether they report Shift beside a capital letter or a back-tab.
    let modifiers = event.modifiers & !KeyModifiers::SHIFT;
    BINDINGS.iter().find(|binding| binding.keys.contains(&(event.code, modifiers))).map(|binding| binding.action)
}

const fn key(
    keys: &'static [(KeyCode, KeyModifiers)],
    action: Action,
    hint: Option<(&'static str, &'static str)>,
    label: &'static str,
    help: &'static str,
) -> Binding {
    Binding { keys, action, hint, label, help }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_has_two_meanings() {
        let mut seen = HashSet::new();
        for binding in BINDINGS {
            for key in binding.keys {
                assert!(seen.insert(*key), "{key:?} is bound twice");
            }
        }
    }

    #[test]
    fn a_capital_letter_is_found_with_and_without_shift() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(action_of(KeyEvent::new(KeyCode::Char('S'), modifiers)), Some(Action::Stop));
        }
        assert_eq!(action_of(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Action::Detach));
        assert_eq!(action_of(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::ALT)), None);
    }
}
