//! The one screen of a run, laid out for the space there is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use crate::run::History;
use crate::tui::app::Link;
use crate::tui::panes::{
    ActivationsPane, BootPane, Footer, LogPane, ObjectivePane, OneLine, OverlayView, SamplesPane, StageBar, StatusLines, SummaryPane, TinyScreen, TokenLossPane,
};
use crate::tui::{App, Look, Markers, Pane};

/// Below this, one line.
const ONE_LINE: (u16, u16) = (20, 5);
/// Below this, numbers and bars.
const TINY: (u16, u16) = (60, 15);
/// From this on, two columns.
const WIDE: (u16, u16) = (120, 30);

/// Draws `app` over `area`.
pub fn view(app: &App, area: Rect, buf: &mut Buffer) {
    let area = area.intersection(buf.area);
    if area.is_empty() {
        return;
    }
    if area.width < ONE_LINE.0 || area.height < ONE_LINE.1 {
        OneLine(app).render(area, buf);
        return;
    }
    if area.width < TINY.0 || area.height < TINY.1 {
        TinyScreen(app).render(area, buf);
        OverlayView(app).render(area, buf);
        return;
    }
    StatusLines(app).render(Rect { height: 2, ..area }, buf);
    StageBar(app).render(Rect { y: area.y + 2, height: 1, ..area }, buf);
    draw_body(app, Rect { y: area.y + 3, height: area.height - 4, ..area }, buf);
    Footer(app).render(Rect { y: area.bottom() - 1, height: 1, ..area }, buf);
    OverlayView(app).render(area, buf);
}

/// The screen of a run as text, `width` by `height`, without colours.
#[must_use]
pub fn view_text(history: &History, width: u16, height: u16) -> String {
    let mut app = App::new(String::new(), Look { markers: Markers::Braille, is_coloured: false });
    app.link = Link::Live;
    app.history = history.clone();
    text_of(&app, width, height)
}

/// The screen of `app` as text.
fn text_of(app: &App, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    view(app, area, &mut buf);
    let mut text = String::new();
    for row in buf.content.chunks(usize::from(width).max(1)) {
        let mut line = String::new();
        let mut cells = row.iter();
        while let Some(cell) = cells.next() {
            line.push_str(cell.symbol());
            // A wide character stands for the cells that it covers.
            if let Some(covered) = cell.symbol().width().checked_sub(2) {
                cells.nth(covered);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn draw_body(app: &App, area: Rect, buf: &mut Buffer) {
    if app.is_zoomed {
        draw_pane(app, app.focus, area, buf);
        return;
    }
    let is_empty = app.history.steps.is_empty() && app.history.evaluations.is_empty();
    if is_empty && !is_over(app) {
        let log = (area.height / 4).clamp(3, 12);
        BootPane(app).render(Rect { height: area.height - log, ..area }, buf);
        LogPane(app).render(Rect { y: area.bottom() - log, height: log, ..area }, buf);
        return;
    }
    // The four lines that stand around the body count for the width of two columns.
    if area.width >= WIDE.0 && area.height + 4 >= WIDE.1 { draw_wide(app, area, buf) } else { draw_normal(app, area, buf) }
}

/// Main curve, then objective and activations side by side, then samples and log.
fn draw_normal(app: &App, area: Rect, buf: &mut Buffer) {
    let extra = area.height.saturating_sub(20);
    let (middle, samples, log) = match area.height {
        20.. => (6 + extra * 3 / 10, 3 + extra / 10, 3 + extra / 10),
        17..20 => (6, 0, 3),
        13..17 => (6, 0, 0),
        _ => (0, 0, 0),
    };
    let summary = if is_over(app) { (samples + log).max(6).min(area.height / 2) } else { 0 };
    let bottom = if summary > 0 { summary } else { samples + log };
    let middle = middle.min(area.height.saturating_sub(bottom + 5));
    let top = Rect { height: area.height - middle - bottom, ..area };
    TokenLossPane(app).render(top, buf);
    let middle = Rect { y: top.bottom(), height: middle, ..area };
    let left = area.width * 9 / 20;
    // One blank column keeps curve and numbers apart.
    ObjectivePane(app).render(Rect { width: left - 1, ..middle }, buf);
    ActivationsPane(app).render(Rect { x: middle.x + left, width: middle.width - left, ..middle }, buf);
    let bottom = Rect { y: middle.bottom(), height: bottom, ..area };
    if summary > 0 {
        SummaryPane(app).render(bottom, buf);
    } else if samples > 0 {
        SamplesPane(app).render(Rect { height: samples, ..bottom }, buf);
    }
    if summary == 0 && log > 0 {
        LogPane(app).render(Rect { y: bottom.bottom() - log, height: log, ..bottom }, buf);
    }
}

/// Curves on the left, activations and samples or summary on the right, log below.
fn draw_wide(app: &App, area: Rect, buf: &mut Buffer) {
    let log = (area.height / 6).clamp(5, 10);
    LogPane(app).render(Rect { y: area.bottom() - log, height: log, ..area }, buf);
    let left = area.width * 3 / 5;
    let curves = Rect { width: left - 1, height: area.height - log, ..area };
    let top = curves.height * 11 / 20;
    TokenLossPane(app).render(Rect { height: top, ..curves }, buf);
    ObjectivePane(app).render(Rect { y: curves.y + top, height: curves.height - top, ..curves }, buf);
    let side = Rect { x: area.x + left, width: area.width - left, ..curves };
    let layers = app.history.activations.last().map_or(4, |one| one.layers.len()) as u16;
    let activations = (2 * layers + 2).clamp(6, side.height / 2);
    ActivationsPane(app).render(Rect { height: activations, ..side }, buf);
    let rest = Rect { y: side.y + activations, height: side.height - activations, ..side };
    if is_over(app) { SummaryPane(app).render(rest, buf) } else { SamplesPane(app).render(rest, buf) }
}

fn draw_pane(app: &App, pane: Pane, area: Rect, buf: &mut Buffer) {
    match pane {
        Pane::TokenLoss => TokenLossPane(app).render(area, buf),
        Pane::Objective => ObjectivePane(app).render(area, buf),
        Pane::Activations => ActivationsPane(app).render(area, buf),
        Pane::Samples => SamplesPane(app).render(area, buf),
        Pane::Log => LogPane(app).render(area, buf),
    }
}

fn is_over(app: &App) -> bool {
    app.history.end.is_some() || app.link == Link::Ended
}
