//! Reduces any number of points to four per column of dots, without changing the picture.

use std::ops::Range;

use crate::record::Series;
use crate::tui::chart::scale::Viewport;

/// What is kept of the points in a column: rows of dots, counted from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extremes {
    /// Column of dots.
    pub column: usize,
    /// Row of the first point.
    pub first: usize,
    /// Row of the last point.
    pub last: usize,
    /// Lowest row.
    pub min: usize,
    /// Highest row.
    pub max: usize,
    /// Whether a line connects the previous column's last point with the first point.
    pub is_joined: bool,
}

/// Groups `points`, ordered by x, into columns of dots; a non-finite point is a gap that interrupts
/// the line.
///
/// After a gap inside a column, a second entry for that column begins.
pub fn decimate(
    points: impl Iterator<Item = (f64, f64)>,
    Viewport { x, y }: Viewport,
    (columns, rows): (usize, usize),
) -> Vec<Extremes> {
    let mut kept: Vec<Extremes> = Vec::new();
    let mut is_joined = false;
    for (x_value, y_value) in points {
        let (Some(column), Some(row)) = (x.dot(x_value, columns), y.dot(y_value, rows)) else {
            is_joined = false;
            continue;
        };
        match kept.last_mut() {
            Some(extremes) if is_joined && extremes.column == column => {
                extremes.last = row;
                extremes.min = extremes.min.min(row);
                extremes.max = extremes.max.max(row);
            }
            _ => {
                kept.push(Extremes {
                    column,
                    first: row,
                    last: row,
                    min: row,
                    max: row,
                    is_joined,
                });
            }
        }
        is_joined = true;
    }
    kept
}

/// The same for the points in `range` of a series, without reading most of them.
#[must_use]
pub fn decimate_series(
    series: &Series,
    range: Range<usize>,
    Viewport { x, y }: Viewport,
    (columns, rows): (usize, usize),
) -> Vec<Extremes> {
    let mut kept = Vec::new();
    let mut is_joined = false;
    let column_of = |idx: usize| x.dot(series[idx].tokens as f64, columns).unwrap_or(0);
    let row_of = |idx: usize| y.dot(series[idx].loss, rows).unwrap_or(0);
    let mut start = range.start;
    while start < range.end {
        let column = column_of(start);
        let end = start
            + series[start..range.end].partition_point(|point| {
                x.dot(point.tokens as f64, columns).unwrap_or(0) <= column
            });
        // Between the gaps are ranges of finite points; the last gap of a column may continue in
        // the next.
        for gap in series.gaps(start..end).chain(std::iter::once(end..end)) {
            if let Some(bounds) = series.bounds(start..gap.start) {
                let (first, last) = (row_of(start), row_of(gap.start - 1));
                kept.push(Extremes {
                    column,
                    first,
                    last,
                    min: row_of(bounds.lowest),
                    max: row_of(bounds.highest),
                    is_joined,
                });
                is_joined = true;
            }
            is_joined = is_joined && gap.is_empty();
            start = gap.end;
        }
    }
    kept
}
