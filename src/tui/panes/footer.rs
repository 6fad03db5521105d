//! The last line: what became of the newest command, and the keys.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::run::{ControlState, sanitize};
use crate::tui::app::{App, Link, Notice, NoticePhase};
use crate::tui::format;
use crate::tui::keys::{Action, BINDINGS};
use crate::tui::theme::Role;

/// The last line of the screen.
pub(crate) struct Footer<'a>(pub(crate) &'a App);

impl Widget for Footer<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let app = self.0;
        let right = area.right().saturating_sub(1);
        let mut x = area.x + 1;
        if area.height == 0 || x >= right {
            return;
        }
        if let Some(line) = message(app) {
            // Two keys stay in sight whatever is said.
            x = buf.set_line(x, area.y, &line, (right - x).saturating_sub(20)).0 + 3;
        }
        let is_over = app.link == Link::Ended || app.history.control == ControlState::Finished;
        for binding in BINDINGS {
            let Some((key, hint)) = binding.hint else { continue };
            let steers = matches!(binding.action, Action::TogglePause | Action::Checkpoint | Action::Stop | Action::Evaluate | Action::Sample);
            if is_over && steers {
                continue;
            }
            let is_held = matches!(app.history.control, ControlState::Pausing | ControlState::Paused);
            let hint = match binding.action {
                Action::TogglePause if is_held => "resume",
                Action::Detach if is_over => "leave",
                _ => hint,
            };
            let wide = (key.len() + 1 + hint.len()) as u16;
            if x + wide > right {
                break;
            }
            buf.set_string(x, area.y, key, app.look.style(Role::Key));
            buf.set_string(x + key.len() as u16 + 1, area.y, hint, app.look.style(Role::Dim));
            x += wide + 3;
        }
    }
}

/// The newest command, or why nothing is heard.
fn message(app: &App) -> Option<Line<'static>> {
    match (&app.notice, &app.link) {
        (Some(notice), _) => Some(notice_line(app, notice)),
        (None, Link::Lost { reason, .. }) => Some(Line::styled(sanitize::line(reason), app.look.style(Role::Warn))),
        (None, Link::Waiting | Link::Live | Link::Ended) => None,
    }
}

fn notice_line(app: &App, notice: &Notice) -> Line<'static> {
    let arrow = app.look.glyph(" \u{2192} ", " -> ");
    let (text, role) = match &notice.phase {
        NoticePhase::Asked => ("asked".into(), Role::Warn),
        NoticePhase::Unheard => ("not sent: no engine hears it".into(), Role::Bad),
        NoticePhase::Accepted(step) => (format!("asked{arrow}accepted at step {}", format::grouped(*step)), Role::Warn),
        NoticePhase::Done(message) => (format!("asked{arrow}accepted{arrow}done{}", said(message)), Role::Good),
        NoticePhase::Failed(message) => (format!("asked{arrow}failed{}", said(message)), Role::Bad),
    };
    let by = notice.from.as_ref().map_or_else(String::new, |from| format!(" ({})", sanitize::line(from)));
    Line::from(vec![Span::styled(format!("{}{by} ", notice.command), app.look.style(Role::Strong)), Span::styled(text, app.look.style(role))])
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {}", sanitize::line(message)) }
}
