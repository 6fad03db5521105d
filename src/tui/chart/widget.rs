//! A chart with axes: curves, a floor, and lines at stage boundaries.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Widget;

use crate::record::Series;
use crate::text::format;
use crate::tui::chart::dots::{ACROSS, DOWN};
use crate::tui::chart::{
    Curve, Domain, Extremes, decimate, decimate_series, nice_ticks, tick_label,
};
use crate::tui::theme::{Role, Theme};

/// A chart over the tokens of a run.
pub(crate) struct Chart<'a> {
    /// Tokens.
    pub(crate) x: Domain,
    /// Nats.
    pub(crate) y: Domain,
    /// Curves; later ones are drawn over earlier ones.
    pub(crate) layers: Vec<Layer<'a>>,
    /// Stage boundaries.
    pub(crate) switches: Vec<Switch>,
    /// A lower bound of the curves, with its label.
    pub(crate) floor: Option<(f64, String)>,
    /// Colors and glyphs.
    pub(crate) theme: Theme,
}

/// A curve and its style.
pub(crate) struct Layer<'a> {
    /// Its points.
    pub(crate) points: Points<'a>,
    /// Its own y range, if it differs from the chart's.
    pub(crate) y: Option<Domain>,
    /// Style.
    pub(crate) style: Style,
}

/// The points of a curve.
pub(crate) enum Points<'a> {
    /// x and y in the order of x.
    Few(Vec<(f64, f64)>),
    /// Losses over tokens.
    Series(&'a Series, Range<usize>),
}

impl Points<'_> {
    fn decimated(&self, domains: (Domain, Domain), dots: (usize, usize)) -> Vec<Extremes> {
        match self {
            Self::Few(points) => decimate(points.iter().copied(), domains, dots),
            Self::Series(series, range) => decimate_series(series, range.clone(), domains, dots),
        }
    }

    /// Ranges of x without finite points.
    fn gaps(&self) -> Vec<(f64, f64)> {
        match self {
            Self::Few(points) => {
                points.iter().filter(|(_, y)| !y.is_finite()).map(|(x, _)| (*x, *x)).collect()
            }
            Self::Series(series, range) => series
                .gaps(range.clone())
                .map(|gap| (series[gap.start].tokens as f64, series[gap.end - 1].tokens as f64))
                .collect(),
        }
    }
}

/// A stage boundary.
pub(crate) struct Switch {
    /// Tokens.
    pub(crate) at: f64,
    /// Label on the left.
    pub(crate) before: String,
    /// Label on the right.
    pub(crate) after: String,
}

impl Widget for Chart<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let ticks = y_ticks(self.y, usize::from(area.height));
        let labels = ticks.iter().map(|tick| tick_label(*tick, &ticks)).collect::<Vec<_>>();
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
        self.draw_switches(plot, buf);
        let (x, y, markers) = (self.x, self.y, self.theme.markers);
        let (width, height) = (usize::from(plot.width), usize::from(plot.height));
        for layer in &self.layers {
            let extremes =
                layer.points.decimated((x, layer.y.unwrap_or(y)), (width * ACROSS, height * DOWN));
            let curve = Curve::new(&extremes, width, height);
            for (row, column) in
                (0..height).flat_map(|row| (0..width).map(move |column| (row, column)))
            {
                if let Some(glyph) = curve.glyph(column, row, markers) {
                    buf[(plot.x + column as u16, plot.y + row as u16)]
                        .set_char(glyph)
                        .set_style(layer.style);
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
            let y = row_of(self.y, *tick, plot);
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
        let ticks = nice_ticks(self.x, (usize::from(area.width) / 12).clamp(1, 10));
        let unit = " tokens";
        let last = ticks.len().saturating_sub(1);
        let mut free = area.x;
        for (idx, tick) in ticks.iter().enumerate() {
            let label = format::short_count(*tick);
            let center = area.x + column_of(self.x, *tick, area);
            let wide = label.len() as u16 + if idx == last { unit.len() as u16 } else { 0 };
            let start = center
                .saturating_sub(label.len() as u16 / 2)
                .clamp(area.x, area.right().saturating_sub(wide).max(area.x));
            if start >= free && start + wide <= area.right() {
                buf.set_string(start, area.y, &label, dim);
                if idx == last {
                    buf.set_string(start + label.len() as u16, area.y, unit, dim);
                }
                free = start + wide + 1;
            }
        }
    }

    /// A mark on the bottom line in each column with a non-finite point.
    fn draw_gaps(&self, plot: Rect, buf: &mut Buffer) {
        let style = self.theme.style(Role::Bad);
        for (from, to) in self.layers.iter().flat_map(|layer| layer.points.gaps()) {
            for column in column_of(self.x, from, plot)..=column_of(self.x, to, plot) {
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
        if !(self.y.lo..=self.y.hi).contains(value) {
            return;
        }
        let (y, style) = (row_of(self.y, *value, plot), self.theme.style(Role::Floor));
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

    fn draw_switches(&self, plot: Rect, buf: &mut Buffer) {
        let style = self.theme.style(Role::Switch);
        for switch in &self.switches {
            let x = plot.x + column_of(self.x, switch.at, plot);
            for y in plot.top()..plot.bottom() {
                buf.set_string(x, y, self.theme.glyph("\u{250a}", ":"), style);
            }
            let before = switch.before.chars().count() as u16;
            if x > plot.x + before {
                buf.set_string(x - before - 1, plot.y, &switch.before, style);
            }
            if x + 2 + switch.after.chars().count() as u16 <= plot.right() {
                buf.set_string(x + 2, plot.y, &switch.after, style);
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
