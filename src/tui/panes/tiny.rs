//! Screens for windows too small for panes: numbers and a line of bars, or a single line.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Widget;

use crate::text::{format, sanitize};
use crate::tui::RunScreen;
use crate::tui::panes::frame::token_domain;
use crate::tui::panes::status::{Item, fitted, number_items, progress_items, state};
use crate::tui::panes::{Footer, StageBar};
use crate::tui::theme::Role;

/// Numbers and a line of bars.
pub(crate) struct TinyScreen<'a>(pub(crate) &'a RunScreen);

/// One line.
pub(crate) struct OneLine<'a>(pub(crate) &'a RunScreen);

impl Widget for TinyScreen<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let width = area.width.saturating_sub(2);
        let mut lines = wrapped(progress_items(run), usize::from(width));
        lines.extend(wrapped(number_items(run), usize::from(width)));
        if let (true, Some(progress)) = (run.history.steps.is_empty(), &run.history.progress) {
            let share =
                progress.total.filter(|total| *total > 0).map_or_else(String::new, |total| {
                    format!(" {} %", format::percent(progress.done, total))
                });
            lines.push(Line::raw(format!("{}{share}", sanitize::line(&progress.activity))));
        }
        let mut y = area.y;
        for line in lines.iter().take(usize::from(area.height.saturating_sub(1))) {
            buf.set_line(area.x + 1, y, line, width);
            y += 1;
        }
        let footer = area.bottom() - 1;
        if y + 1 < footer {
            StageBar(run).render(Rect { y: y + 1, height: 1, ..area }, buf);
        }
        if y + 3 < footer && !run.history.evaluations.is_empty() {
            buf.set_stringn(
                area.x + 1,
                y + 3,
                "token loss (K = 1)",
                usize::from(width),
                run.theme.style(Role::Dim),
            );
            draw_bars(
                run,
                Rect { x: area.x + 1, y: y + 4, width, height: 1 }.intersection(area),
                buf,
            );
        }
        Footer(run).render(Rect { y: footer, height: 1, ..area }, buf);
    }
}

impl Widget for OneLine<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let loss = run.history.evaluations.last().map_or_else(String::new, |evaluation| {
            format!(" {}", format::loss(evaluation.token_loss))
        });
        let state = state(run);
        let style = state.style;
        buf.set_line(
            area.x,
            area.y,
            &Line::styled(format!("{}{loss} step {}", state.content, run.history.step()), style),
            area.width,
        );
    }
}

/// Items over as many lines as needed.
fn wrapped(items: Vec<Item<'static>>, width: usize) -> Vec<Line<'static>> {
    items.into_iter().map(|item| fitted(vec![item], width)).fold(
        Vec::new(),
        |mut lines: Vec<Line<'static>>, line| {
            match lines.last_mut() {
                Some(last) if last.width() + 2 + line.width() <= width => {
                    last.push_span("  ");
                    last.extend(line.spans);
                }
                _ => lines.push(line),
            }
            lines
        },
    )
}

/// The main curve as one bar per piece of the token axis.
fn draw_bars(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    let (domain, evaluations) = (token_domain(run), &run.history.evaluations);
    let finite = || {
        evaluations.iter().map(|evaluation| evaluation.token_loss).filter(|loss| loss.is_finite())
    };
    let (lo, hi) =
        (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    if area.is_empty() {
        return;
    }
    let mut last = None;
    for evaluation in evaluations.iter().filter(|evaluation| evaluation.token_loss.is_finite()) {
        let column = domain.dot(evaluation.tokens as f64, usize::from(area.width)).unwrap_or(0);
        let share = if hi > lo { (evaluation.token_loss - lo) / (hi - lo) } else { 0.5 };
        // Between two measurements, the later one is shown.
        for x in last.map_or(column, |last| last + 1)..=column {
            buf[(area.x + x as u16, area.y)]
                .set_char(run.theme.heat_glyph(share))
                .set_style(run.theme.style(Role::TokenLoss));
        }
        last = Some(column);
    }
}
