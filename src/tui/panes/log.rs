//! The newest log lines.

use std::collections::VecDeque;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::record::{LogLevel, LogLine};
use crate::text::sanitize;
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
        let info = if scroll > 0 {
            Line::styled(format!("{scroll} newer below"), run.theme.style(Role::Warn))
        } else {
            Line::default()
        };
        let inner = framed(
            run,
            Pane::Log,
            Title { text: format!("log ({})", zone_name(&run.zone, log)), info },
            area,
            buf,
        );
        if log.is_empty() {
            centered("nothing yet", run.theme.style(Role::Dim), inner, buf);
        }
        let end = log.len() - scroll;
        for (row, line) in log.range(end.saturating_sub(height)..end).enumerate() {
            buf.set_line(
                inner.x + 1,
                inner.y + row as u16,
                &cells(run, line),
                inner.width.saturating_sub(2),
            );
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
        Span::styled(format!("{} ", clock(&run.zone, &line.at)), run.theme.style(Role::Dim)),
        Span::styled(format!("{} ", run.theme.glyph(fancy, plain)), style),
        Span::styled(sanitize::line(&line.text), style),
    ])
}

/// The time of day of an RFC 3339 time in `zone`; empty if it is not one.
fn clock(zone: &TimeZone, at: &str) -> String {
    at.parse::<Timestamp>().map_or_else(
        |_| String::new(),
        |at| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string(),
    )
}

/// The name of `zone`, or its offset from UTC at the newest line.
fn zone_name(zone: &TimeZone, log: &VecDeque<LogLine>) -> String {
    match zone.iana_name() {
        None | Some("UTC" | "Etc/UTC" | "Etc/Unknown") => {
            let newest =
                log.back().and_then(|line| line.at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
            let seconds = zone.to_offset(newest).seconds();
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            if seconds == 0 {
                "UTC".into()
            } else {
                format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
        Some(name) => sanitize::line(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::LogLevel;

    #[test]
    fn times_are_local_and_the_zone_has_a_name() {
        let log = VecDeque::from([LogLine {
            at: "2026-07-01T22:30:00Z".into(),
            level: LogLevel::Info,
            text: String::new(),
        }]);
        let posix = TimeZone::posix("XXX-5:30").unwrap();
        assert_eq!(
            (clock(&posix, &log[0].at), zone_name(&posix, &log)),
            ("04:00:00".into(), "UTC+05:30".into())
        );
        assert_eq!(
            (clock(&TimeZone::UTC, &log[0].at), zone_name(&TimeZone::UTC, &log)),
            ("22:30:00".into(), "UTC".into())
        );
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(
            (clock(&berlin, &log[0].at), zone_name(&berlin, &log)),
            ("00:30:00".into(), "Europe/Berlin".into())
        );
        assert_eq!(clock(&berlin, "\x1b[2J"), "");
    }
}
