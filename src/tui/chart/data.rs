//! A chart as plain data.

use std::ops::Range;

use ratatui::style::Style;

use crate::record::Series;
use crate::tui::chart::decimate::{Extremes, decimate, decimate_series};
use crate::tui::chart::scale::{Domain, Viewport};
use crate::tui::theme::Theme;

/// What is drawn in which part of the plane.
pub(crate) struct Chart<'a> {
    /// The visible part.
    pub(crate) viewport: Viewport,
    /// Unit of x, after the last label.
    pub(crate) x_unit: &'static str,
    /// Later ones are drawn over earlier ones.
    pub(crate) curves: Vec<Curve<'a>>,
    /// Vertical lines behind the curves.
    pub(crate) marks: Vec<Mark>,
    /// A lower bound of the curves, with its label.
    pub(crate) floor: Option<(f64, String)>,
    /// Colors and glyphs.
    pub(crate) theme: Theme,
}

/// A curve and its style.
pub(crate) struct Curve<'a> {
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

/// A vertical line, with labels beside its upper end.
pub(crate) struct Mark {
    /// Where it is.
    pub(crate) x: f64,
    /// Label on the left.
    pub(crate) before: String,
    /// Label on the right.
    pub(crate) after: String,
}

impl Curve<'_> {
    /// What a grid of `dots` columns and rows over `viewport` shows of it.
    pub(crate) fn decimated(&self, viewport: Viewport, dots: (usize, usize)) -> Vec<Extremes> {
        let viewport = Viewport { y: self.y.unwrap_or(viewport.y), ..viewport };
        match &self.points {
            Points::Few(points) => decimate(points.iter().copied(), viewport, dots),
            Points::Series(series, range) => decimate_series(series, range.clone(), viewport, dots),
        }
    }

    /// Ranges of x without finite points.
    pub(crate) fn gaps(&self) -> Vec<(f64, f64)> {
        match &self.points {
            Points::Few(points) => {
                points.iter().filter(|(_, y)| !y.is_finite()).map(|(x, _)| (*x, *x)).collect()
            }
            Points::Series(series, range) => series
                .gaps(range.clone())
                .map(|gap| (series[gap.start].tokens as f64, series[gap.end - 1].tokens as f64))
                .collect(),
        }
    }
}
