//! A laid out chart as SVG text. Start at [`LineChart::to_svg`].

use crate::report::figure::chart::{
    LEGEND_ROW, LEGEND_SAMPLE, Layout, Line, LineChart, MARGIN, WIDTH, is_drawn, shortened,
};
use crate::report::figure::style::LineStyle;
use crate::text::sanitize_line;

/// The embedded font first; the fallbacks have similar widths.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";
const INK: &str = "#222222";
const SOFT_INK: &str = "#5a5a5a";
const GRID: &str = "#e4e4e4";
/// Maximum number of markers per line: more would cover it.
const MOST_MARKERS: usize = 40;

/// Anchor of a text.
#[derive(Debug, Clone, Copy)]
enum Anchor {
    Start,
    Middle,
    End,
}

impl LineChart {
    /// The chart as an SVG document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let layout = self.layout();
        let height = layout.height;
        let mut parts = vec![
            format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
                 viewBox=\"0 0 {WIDTH} {height}\" font-family=\"{FONT}\" font-size=\"13\">"
            ),
            format!("<title>{}</title>", escaped(&self.title)),
            format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>"),
            text(
                [MARGIN, 32.0],
                Anchor::Start,
                &format!("font-size=\"18\" fill=\"{INK}\""),
                &self.title,
            ),
            text(
                [MARGIN, 53.0],
                Anchor::Start,
                &format!("font-size=\"12.5\" fill=\"{SOFT_INK}\""),
                &self.subtitle,
            ),
        ];
        parts.extend(legend(&self.lines, &layout));
        parts.extend(horizontal_axis(&self.x.title, &layout));
        parts.extend(vertical_axis(&self.y.title, &layout));
        parts.extend(
            self.lines
                .iter()
                .enumerate()
                .map(|(idx, line)| drawn(line, LineStyle::of(idx), &layout)),
        );
        parts.push("</svg>\n".into());
        parts.join("\n")
    }
}

fn legend<'a>(lines: &'a [Line], layout: &'a Layout) -> impl Iterator<Item = String> + 'a {
    let column_width = (WIDTH - 2.0 * MARGIN) / layout.legend_columns as f64;
    lines.iter().enumerate().map(move |(idx, line)| {
        let style = LineStyle::of(idx);
        let x = layout.legend[0] + (idx % layout.legend_columns) as f64 * column_width;
        let y =
            layout.legend[1] + (idx / layout.legend_columns) as f64 * LEGEND_ROW + LEGEND_ROW / 2.0;
        let end = x + LEGEND_SAMPLE - 8.0;
        let sample = format!(
            "{}{}",
            path(&format!("M{x:.1} {y:.1}H{end:.1}"), style),
            style.marker_at([f64::midpoint(x, end), y])
        );
        sample
            + &text(
                [x + LEGEND_SAMPLE, y + 4.5],
                Anchor::Start,
                &format!("fill=\"{INK}\""),
                &shortened(&line.name),
            )
    })
}

fn horizontal_axis<'a>(title: &'a str, layout: &'a Layout) -> impl Iterator<Item = String> + 'a {
    let Layout { left, right, bottom, .. } = layout;
    let frame = format!(
        "<path d=\"M{left:.1} {bottom:.1}H{right:.1}\" stroke=\"{SOFT_INK}\" fill=\"none\"/>"
    );
    let label = move |tick: &f64| {
        let [x, _] = layout.place([*tick, layout.y.low]);
        let mark = format!("<path d=\"M{x:.1} {bottom:.1}v5\" stroke=\"{SOFT_INK}\"/>");
        mark + &text(
            [x, bottom + 20.0],
            Anchor::Middle,
            &format!("fill=\"{SOFT_INK}\""),
            &layout.x.label(*tick),
        )
    };
    let middle = [f64::midpoint(*left, *right), bottom + 46.0];
    let title = text(middle, Anchor::Middle, &format!("font-size=\"14\" fill=\"{INK}\""), title);
    std::iter::once(frame).chain(layout.x.ticks.iter().map(label)).chain([title])
}

fn vertical_axis<'a>(title: &'a str, layout: &'a Layout) -> impl Iterator<Item = String> + 'a {
    let Layout { left, right, .. } = layout;
    let label = move |tick: &f64| {
        let [_, y] = layout.place([layout.x.low, *tick]);
        // The axis itself is the grid line of its low end.
        let line = if y < layout.bottom - 0.5 {
            format!("<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"{GRID}\"/>")
        } else {
            String::new()
        };
        line + &text(
            [left - 8.0, y + 4.5],
            Anchor::End,
            &format!("fill=\"{SOFT_INK}\""),
            &layout.y.label(*tick),
        )
    };
    let [x, y] = [MARGIN, f64::midpoint(layout.top, layout.bottom)];
    let attributes =
        format!("font-size=\"14\" fill=\"{INK}\" transform=\"rotate(-90 {x:.1} {y:.1})\"");
    layout.y.ticks.iter().map(label).chain([text([x, y], Anchor::Middle, &attributes, title)])
}

/// A line with its markers; a point that is not finite interrupts it.
fn drawn(line: &Line, style: LineStyle, layout: &Layout) -> String {
    let mut strokes = Vec::new();
    let mut is_pen_down = false;
    for point in &line.points {
        if is_drawn(point) {
            let [x, y] = layout.place(*point);
            strokes.push(format!("{}{x:.1} {y:.1}", if is_pen_down { "L" } else { "M" }));
        }
        is_pen_down = is_drawn(point);
    }
    let every = line.points.len().div_ceil(MOST_MARKERS).max(1);
    let marked = line.points.iter().step_by(every).filter(|point| is_drawn(point));
    let markers: String = marked.map(|point| style.marker_at(layout.place(*point))).collect();
    format!(
        "<g><title>{}</title>{}{markers}</g>",
        escaped(&line.name),
        path(&strokes.concat(), style)
    )
}

fn path(strokes: &str, LineStyle { colour, dash, .. }: LineStyle) -> String {
    format!(
        "<path d=\"{strokes}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dash}\" stroke-linejoin=\"round\"/>"
    )
}

fn text([x, y]: [f64; 2], anchor: Anchor, attributes: &str, content: &str) -> String {
    let anchor = match anchor {
        Anchor::Start => "start",
        Anchor::Middle => "middle",
        Anchor::End => "end",
    };
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {attributes}>{}</text>",
        escaped(content)
    )
}

/// Untrusted text, escaped for XML, which allows no control characters.
fn escaped(raw: &str) -> String {
    sanitize_line(raw).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
