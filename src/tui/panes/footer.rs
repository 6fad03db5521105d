//! The footer: the result of the newest command, and the keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::record::ControlState;
use crate::text::{format, sanitize};
use crate::tui::keys::{Binding, RunAction, Steer, run_keys};
use crate::tui::message::Access;
use crate::tui::run_screen::{LinkState, Notice, NoticePhase, RunScreen};
use crate::tui::theme::{Role, Theme};

/// Below this width, hints are set closer together.
const NARROW: u16 = 60;

/// The last line of the screen of a run.
pub(crate) struct Footer<'a>(pub(crate) &'a RunScreen);

impl Widget for Footer<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let is_over = run.is_over();
        let is_held = matches!(run.history.control, ControlState::Pausing | ControlState::Paused);
        let hint = |binding: &Binding<RunAction>| {
            let (key, hint) = binding.hint?;
            if is_over && binding.action.is_command() {
                return None;
            }
            Some(match binding.action {
                RunAction::Steer(Steer::TogglePause) if is_held => (key, "resume"),
                RunAction::Detach
                    if run.is_above_another && (is_over || run.access == Access::Read) =>
                {
                    (key, "close")
                }
                RunAction::Detach if is_over => (key, "quit"),
                _ => (key, hint),
            })
        };
        draw_footer(run.theme, message(run), run_keys(run.access).filter_map(hint), area, buf);
    }
}

/// A message, and as many keys as fit after it.
pub(crate) fn draw_footer(
    theme: Theme,
    message: Option<Line<'_>>,
    hints: impl Iterator<Item = (&'static str, &'static str)>,
    area: Rect,
    buf: &mut Buffer,
) {
    let right = area.right().saturating_sub(1);
    let mut x = area.x + 1;
    if area.height == 0 || x >= right {
        return;
    }
    if let Some(line) = message {
        // Two keys stay visible however long the message is.
        x = buf.set_line(x, area.y, &line, (right - x).saturating_sub(20)).0 + 3;
    }
    // On a narrow screen a column less between two hints shows one more of them.
    let gap = if area.width < NARROW { 2 } else { 3 };
    for (key, hint) in hints {
        let wide = (key.len() + 1 + hint.len()) as u16;
        if x + wide > right {
            break;
        }
        buf.set_string(x, area.y, key, theme.style(Role::Key));
        buf.set_string(x + key.len() as u16 + 1, area.y, hint, theme.style(Role::Dim));
        x += wide + gap;
    }
}

/// The newest command of this client, or why the engine is not connected.
fn message(run: &RunScreen) -> Option<Line<'static>> {
    match (&run.notice, &run.link) {
        (None, LinkState::Live | LinkState::Ended) if run.access == Access::Read => {
            Some(Line::styled("read from files", run.theme.style(Role::Dim)))
        }
        (Some(notice), _) => Some(notice_line(run, notice)),
        (None, LinkState::Lost { reason, .. }) => {
            Some(Line::styled(sanitize::line(reason), run.theme.style(Role::Warn)))
        }
        (None, LinkState::Waiting | LinkState::Live | LinkState::Ended) => None,
    }
}

fn notice_line(run: &RunScreen, notice: &Notice) -> Line<'static> {
    let arrow = run.theme.glyph(" \u{2192} ", " -> ");
    let (text, role) = match &notice.phase {
        NoticePhase::Sent => ("sent".into(), Role::Warn),
        NoticePhase::NotSent => ("not sent: no engine is listening".into(), Role::Bad),
        NoticePhase::Accepted(step) => {
            (format!("sent{arrow}accepted at step {}", format::grouped(*step)), Role::Warn)
        }
        NoticePhase::Done(message) => {
            (format!("sent{arrow}accepted{arrow}done{}", detail(message)), Role::Good)
        }
        NoticePhase::Failed(message) => {
            (format!("sent{arrow}failed{}", detail(message)), Role::Bad)
        }
    };
    Line::from(vec![
        Span::styled(format!("{} ", notice.command), run.theme.style(Role::Strong)),
        Span::styled(text, run.theme.style(role)),
    ])
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", sanitize::line(message)) }
}
