//! Content and page layout of a line chart.

use crate::report::figure::axis::{Axis, Scale};

/// Width of every figure, in pixels of the SVG.
pub(super) const WIDTH: f64 = 800.0;
/// Height of the plot area.
const PLOT_HEIGHT: f64 = 360.0;
/// Left edge of everything above the plot.
pub(super) const MARGIN: f64 = 24.0;
/// Space for the labels and the title of the vertical axis.
const LEFT: f64 = 76.0;
/// Space for the labels and the title of the horizontal axis.
const BELOW: f64 = 62.0;
/// Space for title and subtitle.
const HEADING: f64 = 66.0;
pub(super) const LEGEND_ROW: f64 = 22.0;
/// Space for the line sample in front of its name.
pub(super) const LEGEND_SAMPLE: f64 = 46.0;
/// Maximum length of a name in the legend, in characters.
const LONGEST_NAME: usize = 80;
/// Width of a legend character in pixels, a little more than the average.
const CHARACTER: f64 = 7.9;

/// A line chart.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChart {
    /// Title.
    pub title: String,
    /// Subtitle, on one line.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// Lines in the order of the legend.
    pub lines: Vec<Line>,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name in the legend.
    pub name: String,
    /// Points in order; a point that is not finite is a gap.
    pub points: Vec<[f64; 2]>,
}

/// Positions on the page, in pixels from the upper left corner.
#[derive(Debug)]
pub(super) struct Layout {
    pub height: f64,
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    /// Upper left corner of the legend.
    pub legend: [f64; 2],
    pub legend_columns: usize,
    pub x: Scale,
    pub y: Scale,
}

impl LineChart {
    pub(super) fn layout(&self) -> Layout {
        let points =
            || self.lines.iter().flat_map(|line| &line.points).filter(|point| is_drawn(point));
        let longest =
            self.lines.iter().map(|line| shortened(&line.name).chars().count()).max().unwrap_or(0);
        let entry = LEGEND_SAMPLE + longest as f64 * CHARACTER + 16.0;
        let columns =
            (((WIDTH - 2.0 * MARGIN) / entry) as usize).clamp(1, 4).min(self.lines.len().max(1));
        let rows = self.lines.len().div_ceil(columns);
        let top = HEADING + rows as f64 * LEGEND_ROW + 14.0;
        let bottom = top + PLOT_HEIGHT;
        Layout {
            height: bottom + BELOW,
            left: LEFT,
            right: WIDTH - MARGIN,
            top,
            bottom,
            legend: [MARGIN, HEADING],
            // Balance the rows.
            legend_columns: self.lines.len().div_ceil(rows.max(1)).max(1),
            x: self.x.scale(points().map(|point| point[0]), 12),
            y: self.y.scale(points().map(|point| point[1]), 6),
        }
    }
}

impl Layout {
    /// Pixel position of a data point.
    pub(super) fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        // Points at the ends of the range do not touch the frame.
        let inset = 14.0;
        let width = self.right - self.left - 2.0 * inset;
        [
            self.left + inset + self.x.place(x) * width,
            self.bottom - self.y.place(y) * (self.bottom - self.top),
        ]
    }
}

/// Whether a point can be drawn.
pub(super) fn is_drawn(point: &[f64; 2]) -> bool {
    point.iter().all(|number| number.is_finite())
}

/// A name cut to fit into the legend.
pub(super) fn shortened(name: &str) -> String {
    if name.chars().count() <= LONGEST_NAME {
        name.to_owned()
    } else {
        name.chars().take(LONGEST_NAME - 1).chain(['\u{2026}']).collect()
    }
}
