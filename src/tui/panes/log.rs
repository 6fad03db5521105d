//! The newest log lines.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::run::{LogLevel, LogLine, format, sanitize};
use crate::tui::panes::frame::{Title, centered, framed};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// The log pane.
pub(crate) struct LogPane<'a>(pub(crate) &'a RunScreen);

impl Widget for LogPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let log = &run.history.log;
        let height = usize::from(area.height.saturating_sub(1));
        let scroll = run.log_scroll.min(log.len().saturating_sub(height));
        let info = if scroll > 0 { Line::styled(format!("{scroll} newer below"), run.theme.style(Role::Warn)) } else { Line::default() };
        let inner = framed(run, Pane::Log, Title { text: "log (UTC)".into(), info }, area, buf);
        if log.is_empty() {
            centered("nothing yet", run.theme.style(Role::Dim), inner, buf);
        }
        let end = log.len() - scroll;
        for (row, line) in log.range(end.saturating_sub(height)..end).enumerate() {
            buf.set_line(inner.x + 1, inner.y + row as u16, &cells(run, line), inner.width.saturating_sub(2));
        }
    }
}

fn cells(run: &RunScreen, line: &LogLine) -> Line<'static> {
    let (fancy, plain, role) = match line.level {
        LogLevel::Info => ("\u{b7}", " ", Role::Plain),
        LogLevel::Warning => ("\u{25b2}", "!", Role::Warn),
        LogLevel::Error => ("\u{2716}", "x", Role::Bad),
    };
    let style = run.theme.style(role);
    Line::from(vec![
        Span::styled(format!("{} ", format::clock(&line.at)), run.theme.style(Role::Dim)),
        Span::styled(format!("{} ", run.theme.glyph(fancy, plain)), style),
        Span::styled(sanitize::line(&line.text), style),
    ])
}
