//! Layout: the list of runs, or the screen of one run, for the available space.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use unicode_width::UnicodeWidthStr;

use crate::record::History;
use crate::tui::app::{App, Screen};
use crate::tui::message::{Access, RunId};
use crate::tui::panes::{
    ActivationsPane, BootPane, Footer, HomePane, LogPane, ObjectivePane, OneLine, OverlayView,
    SamplesPane, StageBar, StatusLines, SummaryPane, TinyScreen, TokenLossPane,
};
use crate::tui::run_screen::{LinkState, Pane, RunScreen};
use crate::tui::theme::{Markers, Theme};

/// Below this, a single line.
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
    match &app.screen {
        Screen::Home(home) => HomePane(home).render(area, buf),
        Screen::Run(run) => view_run(run, area, buf),
    }
}

/// Draws `run` over `area`, which is not empty.
fn view_run(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    if area.width < ONE_LINE.0 || area.height < ONE_LINE.1 {
        OneLine(run).render(area, buf);
        return;
    }
    if area.width < TINY.0 || area.height < TINY.1 {
        TinyScreen(run).render(area, buf);
        OverlayView(run).render(area, buf);
        return;
    }
    StatusLines(run).render(Rect { height: 2, ..area }, buf);
    StageBar(run).render(Rect { y: area.y + 2, height: 1, ..area }, buf);
    draw_body(run, Rect { y: area.y + 3, height: area.height - 4, ..area }, buf);
    Footer(run).render(Rect { y: area.bottom() - 1, height: 1, ..area }, buf);
    OverlayView(run).render(area, buf);
}

/// The screen of a run as text, `width` by `height`, without colors.
#[must_use]
pub fn view_text(history: &History, width: u16, height: u16) -> String {
    let theme = Theme::plain(Markers::Braille);
    let mut run = RunScreen::new(RunId::FIRST, String::new(), Access::Steer, theme);
    run.link = LinkState::Live;
    run.history = history.clone();
    text_of(&run, width, height)
}

/// The screen of `run` as text.
fn text_of(run: &RunScreen, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buf = Buffer::empty(area);
    if !area.is_empty() {
        view_run(run, area, &mut buf);
    }
    let mut text = String::new();
    for row in buf.content.chunks(usize::from(width).max(1)) {
        let mut line = String::new();
        let mut cells = row.iter();
        while let Some(cell) = cells.next() {
            line.push_str(cell.symbol());
            // A wide character covers the cells after it.
            if let Some(covered) = cell.symbol().width().checked_sub(2) {
                cells.nth(covered);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn draw_body(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    if run.is_zoomed {
        draw_pane(run, run.focus, area, buf);
        return;
    }
    let is_empty = run.history.steps.is_empty() && run.history.evaluations.is_empty();
    if is_empty && !is_over(run) {
        let log = (area.height / 4).clamp(3, 12);
        BootPane(run).render(Rect { height: area.height - log, ..area }, buf);
        LogPane(run).render(Rect { y: area.bottom() - log, height: log, ..area }, buf);
        return;
    }
    // The four lines around the body count for the width of two columns.
    if area.width >= WIDE.0 && area.height + 4 >= WIDE.1 {
        draw_wide(run, area, buf);
    } else {
        draw_normal(run, area, buf);
    }
}

/// Main curve, then objective and activations side by side, then samples and log.
fn draw_normal(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    let extra = area.height.saturating_sub(20);
    let (middle, samples, log) = match area.height {
        20.. => (6 + extra * 3 / 10, 3 + extra / 10, 3 + extra / 10),
        17..20 => (6, 0, 3),
        13..17 => (6, 0, 0),
        _ => (0, 0, 0),
    };
    let summary = if is_over(run) { (samples + log).max(6).min(area.height / 2) } else { 0 };
    let bottom = if summary > 0 { summary } else { samples + log };
    let middle = middle.min(area.height.saturating_sub(bottom + 5));
    let top = Rect { height: area.height - middle - bottom, ..area };
    TokenLossPane(run).render(top, buf);
    let middle = Rect { y: top.bottom(), height: middle, ..area };
    let left = area.width * 9 / 20;
    // One blank column separates curve and numbers.
    ObjectivePane(run).render(Rect { width: left - 1, ..middle }, buf);
    ActivationsPane(run)
        .render(Rect { x: middle.x + left, width: middle.width - left, ..middle }, buf);
    let bottom = Rect { y: middle.bottom(), height: bottom, ..area };
    if summary > 0 {
        SummaryPane(run).render(bottom, buf);
    } else if samples > 0 {
        SamplesPane(run).render(Rect { height: samples, ..bottom }, buf);
    }
    if summary == 0 && log > 0 {
        LogPane(run).render(Rect { y: bottom.bottom() - log, height: log, ..bottom }, buf);
    }
}

/// Curves on the left, activations and samples or summary on the right, log below.
fn draw_wide(run: &RunScreen, area: Rect, buf: &mut Buffer) {
    let log = (area.height / 6).clamp(5, 10);
    LogPane(run).render(Rect { y: area.bottom() - log, height: log, ..area }, buf);
    let left = area.width * 3 / 5;
    let curves = Rect { width: left - 1, height: area.height - log, ..area };
    let top = curves.height * 11 / 20;
    TokenLossPane(run).render(Rect { height: top, ..curves }, buf);
    ObjectivePane(run)
        .render(Rect { y: curves.y + top, height: curves.height - top, ..curves }, buf);
    let side = Rect { x: area.x + left, width: area.width - left, ..curves };
    let layers = run.history.activations.last().map_or(4, |one| one.layers.len()) as u16;
    let activations = (2 * layers + 2).clamp(6, side.height / 2);
    ActivationsPane(run).render(Rect { height: activations, ..side }, buf);
    let rest = Rect { y: side.y + activations, height: side.height - activations, ..side };
    if is_over(run) {
        SummaryPane(run).render(rest, buf);
    } else {
        SamplesPane(run).render(rest, buf);
    }
}

fn draw_pane(run: &RunScreen, pane: Pane, area: Rect, buf: &mut Buffer) {
    match pane {
        Pane::TokenLoss => TokenLossPane(run).render(area, buf),
        Pane::Objective => ObjectivePane(run).render(area, buf),
        Pane::Activations => ActivationsPane(run).render(area, buf),
        Pane::Samples => SamplesPane(run).render(area, buf),
        Pane::Log => LogPane(run).render(area, buf),
    }
}

fn is_over(run: &RunScreen) -> bool {
    run.history.end.is_some() || run.link == LinkState::Ended
}
