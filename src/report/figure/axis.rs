//! Axes: their ranges and their labels.

use crate::text::ticks::{decimals, label, multiples, round_step};

/// One axis of a chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// Title, with the unit.
    pub title: String,
    /// Kind of tick labels.
    pub ticks: AxisTicks,
    /// Range.
    pub range: AxisRange,
}

/// Kind of tick labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisTicks {
    /// Round numbers.
    Any,
    /// Integers, for counts.
    Whole,
}

/// Range of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AxisRange {
    /// From the smallest to the largest of the data.
    OfData,
    /// From zero to a round number above the data.
    FromZero,
}

/// Mapping of numbers to an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    /// Decimal places of a label.
    decimals: usize,
}

impl Axis {
    /// The scale for finite `values`, with about `most` ticks.
    pub(super) fn scale(&self, values: impl Iterator<Item = f64>, most: usize) -> Scale {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        if self.range == AxisRange::FromZero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low <= f64::EPSILON * low.abs().max(high.abs()) {
            (low, high) = if self.range == AxisRange::FromZero {
                (0.0, 1.0)
            } else {
                (low - 0.5, high + 0.5)
            };
        }
        let mut step = round_step((high - low) / most.max(1) as f64);
        if self.ticks == AxisTicks::Whole {
            step = step.max(1.0).ceil();
        }
        if self.range == AxisRange::FromZero {
            (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        }
        let ticks = multiples(step, low, high).collect();
        Scale { low, high, ticks, decimals: decimals(step) }
    }
}

impl Scale {
    /// Relative position of `value`: 0 at the low end, 1 at the high end.
    pub(super) fn place(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    pub(super) fn label(&self, tick: f64) -> String {
        label(tick, self.decimals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(
        ticks: AxisTicks,
        range: AxisRange,
        values: &[f64],
        most: usize,
    ) -> (f64, f64, Vec<String>) {
        let scale = Axis { title: String::new(), ticks, range }.scale(values.iter().copied(), most);
        let labels = scale.ticks.iter().map(|tick| scale.label(*tick)).collect();
        (scale.low, scale.high, labels)
    }

    #[test]
    fn an_axis_is_labelled_with_round_numbers_inside_it() {
        let any = |range, values: &[f64]| labels(AxisTicks::Any, range, values, 5);
        assert_eq!(
            any(AxisRange::FromZero, &[3.0, 81.8]),
            (0.0, 100.0, ["0", "20", "40", "60", "80", "100"].map(String::from).into())
        );
        assert_eq!(
            any(AxisRange::FromZero, &[0.02]),
            (0.0, 0.02, ["0.000", "0.005", "0.010", "0.015", "0.020"].map(String::from).into())
        );
        assert_eq!(
            any(AxisRange::OfData, &[1.42, 3.1]),
            (1.42, 3.1, ["1.5", "2.0", "2.5", "3.0"].map(String::from).into())
        );
        assert_eq!(any(AxisRange::OfData, &[-0.2, 0.2]).2, ["-0.2", "-0.1", "0.0", "0.1", "0.2"]);
    }

    #[test]
    fn layers_are_labelled_with_whole_numbers() {
        let whole =
            |last: f64, most| labels(AxisTicks::Whole, AxisRange::OfData, &[1.0, last], most).2;
        assert_eq!(whole(4.0, 12), ["1", "2", "3", "4"]);
        assert_eq!(
            whole(24.0, 12),
            ["2", "4", "6", "8", "10", "12", "14", "16", "18", "20", "22", "24"]
        );
        assert_eq!(whole(1.0, 12), ["1"]);
    }

    #[test]
    fn an_axis_without_data_or_with_one_number_has_a_width() {
        for values in [&[][..], &[0.0], &[7.0, 7.0], &[-3.0]] {
            for range in [AxisRange::OfData, AxisRange::FromZero] {
                let (low, high, labels) = labels(AxisTicks::Any, range, values, 5);
                assert!(high > low && !labels.is_empty(), "{values:?} {range:?}: {low} {high}");
            }
        }
    }
}
