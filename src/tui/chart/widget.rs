//! Draws a chart with axes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;

use crate::text::format;
use crate::tui::chart::data::{Chart, Curve};
use crate::tui::chart::dots::{ACROSS, DOWN, Dots};
use crate::tui::chart::scale::{Domain, nice_ticks, tick_labels};
use crate::tui::theme::Role;

impl Widget for &Chart<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let ticks = y_ticks(self.viewport.y, usize::from(area.height));
        let labels = tick_labels(&ticks);
        let gutter = labels.iter().map(String::len).max().unwrap_or(0) as u16 + 1;
        if area.width < gutter + 8 || area.height < 3 {
            return;
        }
        let plot = Rect {
            x: area.x + gutter,
            y: area.y,
            width: area.width - gutter,
            height: area.height - 1,
        };
        self.draw_y_axis(plot, &ticks, &labels, buf);
        self.draw_x_axis(Rect { y: plot.bottom(), height: 1, ..plot }, buf);
        self.draw_floor(plot, buf);
        self.draw_marks(plot, buf);
        let (width, height) = (usize::from(plot.width), usize::from(plot.height));
        for curve in &self.curves {
            let extremes = curve.decimated(self.viewport, (width * ACROSS, height * DOWN));
            let dots = Dots::new(&extremes, width, height);
            for (row, column) in
                (0..height).flat_map(|row| (0..width).map(move |column| (row, column)))
            {
                if let Some(glyph) = dots.glyph(column, row, self.theme.markers) {
                    buf[(plot.x + column as u16, plot.y + row as u16)]
                        .set_char(glyph)
                        .set_style(curve.style);
                }
            }
        }
        self.draw_gaps(plot, buf);
    }
}

impl Chart<'_> {
    fn draw_y_axis(&self, plot: Rect, ticks: &[f64], labels: &[String], buf: &mut Buffer) {
        let (dim, axis) = (self.theme.style(Role::Dim), self.theme.style(Role::Previous));
        for y in plot.top()..plot.bottom() {
            buf.set_string(plot.x - 1, y, self.theme.glyph("\u{2502}", "|"), axis);
        }
        let mut free = plot.bottom();
        for (tick, label) in ticks.iter().zip(labels) {
            let y = row_of(self.viewport.y, *tick, plot);
            if y < free {
                buf.set_string(plot.x - 1 - label.len() as u16, y, label, dim);
                buf.set_string(plot.x - 1, y, self.theme.glyph("\u{2524}", "+"), axis);
                // Labels are never on adjacent lines.
                free = y.saturating_sub(1);
            }
        }
    }

    fn draw_x_axis(&self, area: Rect, buf: &mut Buffer) {
        let dim = self.theme.style(Role::Dim);
        let ticks = nice_ticks(self.viewport.x, (usize::from(area.width) / 12).clamp(1, 10));
        let unit = format!(" {}", self.x_unit);
        let last = ticks.len().saturating_sub(1);
        let mut free = area.x;
        for (idx, tick) in ticks.iter().enumerate() {
            let label = format::short_count(*tick);
            let center = area.x + column_of(self.viewport.x, *tick, area);
            let wide = label.len() as u16 + if idx == last { unit.len() as u16 } else { 0 };
            let start = center
                .saturating_sub(label.len() as u16 / 2)
                .clamp(area.x, area.right().saturating_sub(wide).max(area.x));
            if start >= free && start + wide <= area.right() {
                buf.set_string(start, area.y, &label, dim);
                if idx == last {
                    buf.set_string(start + label.len() as u16, area.y, &unit, dim);
                }
                free = start + wide + 1;
            }
        }
    }

    /// A mark on the bottom line in each column with a non-finite point.
    fn draw_gaps(&self, plot: Rect, buf: &mut Buffer) {
        let style = self.theme.style(Role::Bad);
        for (from, to) in self.curves.iter().flat_map(Curve::gaps) {
            for column in
                column_of(self.viewport.x, from, plot)..=column_of(self.viewport.x, to, plot)
            {
                buf.set_string(
                    plot.x + column,
                    plot.bottom() - 1,
                    self.theme.glyph("\u{d7}", "x"),
                    style,
                );
            }
        }
    }

    fn draw_floor(&self, plot: Rect, buf: &mut Buffer) {
        let Some((value, label)) = &self.floor else { return };
        if !(self.viewport.y.lo..=self.viewport.y.hi).contains(value) {
            return;
        }
        let (y, style) = (row_of(self.viewport.y, *value, plot), self.theme.style(Role::Floor));
        for x in plot.left()..plot.right() {
            buf.set_string(x, y, self.theme.glyph("\u{254c}", "-"), style);
        }
        // The curve is high on the left, so the label covers nothing.
        buf.set_stringn(
            plot.x + 2,
            y,
            format!(" {label} "),
            usize::from(plot.width.saturating_sub(4)),
            style,
        );
    }

    fn draw_marks(&self, plot: Rect, buf: &mut Buffer) {
        let style = self.theme.style(Role::Switch);
        for mark in &self.marks {
            let x = plot.x + column_of(self.viewport.x, mark.x, plot);
            for y in plot.top()..plot.bottom() {
                buf.set_string(x, y, self.theme.glyph("\u{250a}", ":"), style);
            }
            let before = mark.before.chars().count() as u16;
            if x > plot.x + before {
                buf.set_string(x - before - 1, plot.y, &mark.before, style);
            }
            if x + 2 + mark.after.chars().count() as u16 <= plot.right() {
                buf.set_string(x + 2, plot.y, &mark.after, style);
            }
        }
    }
}

/// Ticks on about every second line, and at least two if the range has them.
fn y_ticks(domain: Domain, height: usize) -> Vec<f64> {
    let few = (height / 2).clamp(1, 8);
    (few..=few + 4)
        .map(|max_ticks| nice_ticks(domain, max_ticks))
        .find(|ticks| ticks.len() > 1)
        .unwrap_or_default()
}

fn row_of(domain: Domain, value: f64, plot: Rect) -> u16 {
    let dots = usize::from(plot.height) * DOWN;
    let from_bottom = domain.dot(value, dots).unwrap_or(0) / DOWN;
    plot.bottom() - 1 - from_bottom as u16
}

fn column_of(domain: Domain, value: f64, area: Rect) -> u16 {
    (domain.dot(value, usize::from(area.width) * ACROSS).unwrap_or(0) / ACROSS) as u16
}
