//! Activations per layer: numbers at the end of each stage, and a strip over the run.
//!
//! Rates are often far below one percent and differ between layers and stages by factors, so the
//! strip's scale is logarithmic between the smallest and the largest value seen. A strip shares the
//! token axis of the curves: a new measurement only touches new cells.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use crate::config::PatchSize;
use crate::record::{Activations, LayerActivation};
use crate::text::format;
use crate::tui::panes::frame::{Title, centered, framed, switches, token_domain};
use crate::tui::theme::Role;
use crate::tui::{Pane, RunScreen};

/// Columns of the numbers of one stage: rate, space, mean, two spaces.
const BLOCK: usize = 13;
/// Minimum width of the strip; numbers are dropped first.
const STRIP: usize = 8;

/// The activation pane.
pub(crate) struct ActivationsPane<'a>(pub(crate) &'a RunScreen);

/// Rates of one group of adjacent layers at every measurement.
struct Row {
    label: String,
    layers: std::ops::Range<usize>,
}

/// Logarithmic between the smallest and the largest value seen.
struct Scale {
    lo: f64,
    hi: f64,
    shows_mean: bool,
}

impl Widget for ActivationsPane<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let run = self.0;
        let measured = &run.history.activations;
        let newest = measured.last();
        let text = match newest {
            Some(newest) => format!("active |x| > {}", newest.threshold),
            None => "activations".into(),
        };
        let scale = Scale::of(measured, shows_mean(run));
        let inner =
            framed(run, Pane::Activations, Title { text, info: scale.legend(run) }, area, buf);
        let (Some(newest), true) = (newest, inner.height >= 2 && inner.width >= 20) else {
            centered("not measured yet", run.theme.style(Role::Dim), inner, buf);
            return;
        };
        let rows = rows(newest.layers.len(), usize::from(inner.height) - 1);
        // With spare space the bars grow, and become readable as curves.
        let tall = ((inner.height - 1) / rows.len().max(1) as u16).clamp(1, 4);
        let label_width = rows.iter().map(|row| row.label.len()).max().unwrap_or(0) + 1;
        let stages = last_of_stages(
            measured,
            usize::from(inner.width).saturating_sub(label_width + STRIP) / BLOCK,
        );
        let strip_x = (label_width + BLOCK * stages.len()).min(usize::from(inner.width)) as u16;
        draw_header(run, &stages, inner.x + label_width as u16, inner.y, buf);
        draw_switches(
            run,
            Rect { x: inner.x + strip_x, width: inner.width - strip_x, height: 1, ..inner },
            buf,
        );
        for (idx, row) in rows.iter().enumerate() {
            let top = inner.y + 1 + idx as u16 * tall;
            let y = top + tall - 1;
            buf.set_stringn(
                inner.x,
                y,
                &row.label,
                usize::from(inner.width),
                run.theme.style(Role::Dim),
            );
            draw_numbers(run, row, &stages, (inner.x + label_width as u16, y), buf);
            let strip =
                Rect { x: inner.x + strip_x, y: top, width: inner.width - strip_x, height: tall };
            draw_strip(run, row, &scale, strip, buf);
        }
    }
}

impl Scale {
    fn of(measured: &[Activations], shows_mean: bool) -> Self {
        let values = || {
            measured
                .iter()
                .flat_map(|one| &one.layers)
                .map(|layer| value(layer, shows_mean))
                .filter(|value| value.is_finite() && *value > 0.0)
        };
        let hi = values().fold(f64::MIN_POSITIVE, f64::max);
        // Below a ten-thousandth of the largest, differences are noise; above half of it, they
        // would be exaggerated.
        let lo = values().fold(hi, f64::min).clamp(hi * 1e-4, hi * 0.5);
        Self { lo, hi, shows_mean }
    }

    /// Position of `value` on the scale; `None` for zero and non-finite numbers.
    fn share(&self, value: f64) -> Option<f64> {
        (value.is_finite() && value > 0.0)
            .then(|| ((value / self.lo).ln() / (self.hi / self.lo).ln()).clamp(0.0, 1.0))
    }

    fn legend(&self, run: &RunScreen) -> Line<'static> {
        if self.hi <= f64::MIN_POSITIVE {
            return Line::default();
        }
        let (name, unit) = if self.shows_mean { ("mean ", "") } else { ("", " %") };
        let dim = run.theme.style(Role::Dim);
        Line::from(vec![
            Span::styled(format!("{name}{}", format::small(self.lo)), dim),
            Span::styled(run.theme.heat_glyph(0.0).to_string(), run.theme.heat_style(0.0)),
            Span::styled(run.theme.heat_glyph(0.5).to_string(), run.theme.heat_style(0.5)),
            Span::styled(run.theme.heat_glyph(1.0).to_string(), run.theme.heat_style(1.0)),
            Span::styled(format!("{}{unit}", format::small(self.hi)), dim),
        ])
    }
}

/// Whether the strip shows mean |x|: by choice, or because every rate is zero and a strip of rates
/// would be empty.
fn shows_mean(run: &RunScreen) -> bool {
    run.shows_mean
        || run.history.activations.iter().flat_map(|one| &one.layers).all(|layer| layer.rate <= 0.0)
}

fn value(layer: &LayerActivation, shows_mean: bool) -> f64 {
    if shows_mean { layer.mean_abs } else { layer.rate }
}

/// `layers` layers in at most `limit` rows; adjacent layers share a row if there are more.
fn rows(layers: usize, limit: usize) -> Vec<Row> {
    let per_row = layers.div_ceil(limit.max(1)).max(1);
    let row = |first: usize| {
        let end = (first + per_row).min(layers);
        let label = if end - first == 1 {
            format!("L{}", first + 1)
        } else {
            format!("L{}-{end}", first + 1)
        };
        Row { label, layers: first..end }
    };
    (0..layers).step_by(per_row).map(row).collect()
}

/// Mean over the layers of a row.
fn row_mean(one: &Activations, row: &Row, shows_mean: bool) -> Option<f64> {
    let layers = one.layers.get(row.layers.clone())?;
    Some(
        layers.iter().map(|layer| value(layer, shows_mean)).sum::<f64>()
            / layers.len().max(1) as f64,
    )
}

/// The last measurement of each of the newest `limit` stages, oldest first.
fn last_of_stages(measured: &[Activations], limit: usize) -> Vec<&Activations> {
    let lasts = measured
        .chunk_by(|a, b| a.stage == b.stage)
        .filter_map(<[Activations]>::last)
        .collect::<Vec<_>>();
    lasts[lasts.len().saturating_sub(limit)..].to_vec()
}

fn draw_header(run: &RunScreen, stages: &[&Activations], x: u16, y: u16, buf: &mut Buffer) {
    let dim = run.theme.style(Role::Dim);
    for (idx, one) in stages.iter().enumerate() {
        let x = x + (BLOCK * idx) as u16;
        buf.set_string(x, y, format!("{:>5} {:>5}", patch_label(one.patch_size), "mean"), dim);
    }
}

/// Marks above the strips where stages begin.
fn draw_switches(run: &RunScreen, strip: Rect, buf: &mut Buffer) {
    let style = run.theme.style(Role::Switch);
    for switch in switches(run) {
        let column = token_domain(run).dot(switch.x, usize::from(strip.width)).unwrap_or(0) as u16;
        let text = format!("{}{}", run.theme.glyph("\u{250a}", ":"), switch.after);
        buf.set_stringn(
            strip.x + column,
            strip.y,
            text,
            usize::from(strip.width.saturating_sub(column)),
            style,
        );
    }
}

fn patch_label(patch_size: PatchSize) -> String {
    let short = format!("K={patch_size} %");
    if short.len() <= 5 { short } else { format!("K={patch_size}") }
}

fn draw_numbers(
    run: &RunScreen,
    row: &Row,
    stages: &[&Activations],
    (x, y): (u16, u16),
    buf: &mut Buffer,
) {
    for (idx, one) in stages.iter().enumerate() {
        let x = x + (BLOCK * idx) as u16;
        let style = run.theme.style(if idx + 1 == stages.len() { Role::Plain } else { Role::Dim });
        let text =
            |shows_mean| row_mean(one, row, shows_mean).map_or_else(|| "-".into(), format::small);
        buf.set_string(x, y, format!("{:>5} {:>5}", text(false), text(true)), style);
    }
}

/// Draws one column per piece of the token axis: the newest measurement up to its end.
fn draw_strip(run: &RunScreen, row: &Row, scale: &Scale, strip: Rect, buf: &mut Buffer) {
    let (domain, measured) = (token_domain(run), &run.history.activations);
    let (Some(first), Some(last), 1..) = (measured.first(), measured.last(), strip.width) else {
        return;
    };
    let column_of = |tokens: u64| domain.dot(tokens as f64, usize::from(strip.width)).unwrap_or(0);
    let mut next = 0;
    for column in column_of(first.tokens)..=column_of(last.tokens) {
        while next + 1 < measured.len() && column_of(measured[next + 1].tokens) <= column {
            next += 1;
        }
        let share =
            row_mean(&measured[next], row, scale.shows_mean).and_then(|value| scale.share(value));
        let Some(share) = share else { continue };
        for row in 0..strip.height {
            // The height of the bar inside this row, in rows; the lowest value still shows.
            let level = (share * f64::from(strip.height)).max(0.01) - f64::from(row);
            if level > 0.0 {
                let cell = &mut buf[(strip.x + column as u16, strip.bottom() - 1 - row)];
                cell.set_char(run.theme.heat_glyph(level)).set_style(run.theme.heat_style(share));
            }
        }
    }
}
