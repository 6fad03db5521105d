//! Ranges and ticks at round numbers, so that a new point rarely moves the picture.

use crate::record::Spread;
use crate::text::ticks::{decimals, label, multiples, round_step};

/// Maximum number of divisions of the y axis: fine enough to use the height, coarse enough to stay
/// put.
pub(crate) const PIECES: usize = 10;

/// Minimum range relative to the largest value: three decimals of a usual loss distinguish its
/// ticks.
const LEAST_SPAN: f64 = 1e-3;
/// Range around identical values, relative to them.
const FLAT_SPAN: f64 = 0.1;

/// A range of values, `lo < hi`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Domain {
    /// The lower end.
    pub lo: f64,
    /// The upper end.
    pub hi: f64,
}

/// The visible part of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Viewport {
    /// From left to right.
    pub x: Domain,
    /// From bottom to top.
    pub y: Domain,
}

impl Domain {
    /// Relative position of `value`: 0 at the lower end, 1 at the upper.
    #[must_use]
    pub fn share(self, value: f64) -> f64 {
        (value - self.lo) / (self.hi - self.lo)
    }

    /// Index of the dot for `value` among `dots` dots; values outside are clamped. `None` if it is
    /// not finite.
    #[must_use]
    pub fn dot(self, value: f64, dots: usize) -> Option<usize> {
        // A relative position may be infinite for a finite value: the range is narrow and far away.
        let share = self.share(value);
        (value.is_finite() && !share.is_nan())
            .then(|| (share.clamp(0.0, 1.0) * dots.saturating_sub(1) as f64).round() as usize)
    }
}

/// The smallest range with round ends that contains `lo..=hi` and that round numbers divide into at
/// most about `pieces`.
///
/// More pieces waste less of the height; fewer pieces move less often.
#[must_use]
pub fn nice_domain(lo: f64, hi: f64, pieces: usize) -> Domain {
    if !lo.is_finite() || !hi.is_finite() || (hi - lo).is_infinite() {
        return Domain { lo: 0.0, hi: 1.0 };
    }
    // One point, or a flat line, still needs a range, and differences below the precision of a
    // label do not justify a narrow one.
    let least = lo.abs().max(hi.abs()).max(1e-3) * if lo < hi { LEAST_SPAN } else { FLAT_SPAN };
    let step = round_step((hi - lo).max(least) / pieces.max(1) as f64);
    let (mut low, mut high) = ((lo / step).floor() * step, (hi / step).ceil() * step);
    if low >= high {
        low -= step;
        high += step;
    }
    Domain { lo: low, hi: high }
}

/// Round numbers inside `domain`, at most about `max_ticks`.
#[must_use]
pub fn nice_ticks(domain: Domain, max_ticks: usize) -> Vec<f64> {
    let span = domain.hi - domain.lo;
    if !(span > 0.0 && span.is_finite()) || max_ticks == 0 {
        return Vec::new();
    }
    let step = round_step(span / max_ticks as f64);
    multiples(step, domain.lo, domain.hi)
        .take(max_ticks + 2)
        .filter(|tick| *tick <= domain.hi + step * 1e-9)
        .collect()
}

/// Labels with as many decimals as the spacing of `ticks` needs.
pub(crate) fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let decimals = match ticks {
        [first, second, ..] => decimals(second - first).min(6),
        _ => 0,
    };
    ticks.iter().map(|tick| label(*tick, decimals)).collect()
}

/// The range of values without rare high outliers; the third value is the maximum, if it is
/// outside.
///
/// The first steps of a run are often far above all others; a range that included them would
/// flatten the rest.
pub(crate) fn robust_range(spread: Spread) -> (f64, f64, Option<f64>) {
    const ENOUGH: usize = 40;
    let Spread { count, lo, hi, usual } = spread;
    let usual = usual - lo;
    if count >= ENOUGH && hi - lo > 2.5 * usual && usual > 0.0 {
        (lo, lo + 1.25 * usual, Some(hi))
    } else {
        (lo, hi, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_round_and_hold_the_values() {
        for (lo, hi, want) in [
            (1.93, 6.4, (1.0, 7.0)),
            (3.214, 3.267, (3.21, 3.27)),
            (0.0, 3.1e6, (0.0, 4e6)),
            (5.0, 5.0, (4.9, 5.1)),
        ] {
            let domain = nice_domain(lo, hi, 6);
            assert!(
                domain.lo <= lo && domain.hi >= hi && domain.lo < domain.hi,
                "{lo} {hi} {domain:?}"
            );
            assert!(
                (domain.lo - want.0).abs() < 1e-9 && (domain.hi - want.1).abs() < 1e-9,
                "{lo} {hi} {domain:?}"
            );
        }
    }

    #[test]
    fn a_slightly_larger_value_keeps_the_domain() {
        assert_eq!(nice_domain(2.0, 6.41, 6), nice_domain(2.03, 6.83, 6));
    }

    #[test]
    fn the_axis_of_one_point_has_the_digits_of_a_loss() {
        for (lo, hi) in [
            (8.339_191_5, 8.339_191_5),
            (8.339_191, 8.339_192),
            (2.0, 2.0),
            (0.031_4, 0.031_4),
            (1234.5, 1234.5),
        ] {
            let domain = nice_domain(lo, hi, PIECES);
            let ticks = nice_ticks(domain, 4);
            let labels = tick_labels(&ticks);
            assert!(
                domain.lo <= lo && hi <= domain.hi && labels.len() >= 2,
                "{domain:?} {labels:?}"
            );
            assert!(labels.iter().all(|label| label.len() <= 6), "{labels:?}");
        }
    }

    #[test]
    fn strange_ranges_never_panic() {
        for lo in [f64::NAN, f64::NEG_INFINITY, -1e308, 0.0, 1e-320, 1e308] {
            for hi in [f64::NAN, f64::INFINITY, 0.0, 1e-320, 1e308] {
                let domain = nice_domain(lo, hi, 4);
                assert!(nice_ticks(domain, 4).len() <= 6);
            }
        }
    }

    #[test]
    fn labels_have_the_decimals_of_the_step() {
        let ticks = nice_ticks(Domain { lo: 3.2, hi: 3.28 }, 4);
        assert_eq!(tick_labels(&ticks), ["3.20", "3.22", "3.24", "3.26", "3.28"]);
    }

    #[test]
    fn a_first_spike_does_not_flatten_the_rest() {
        let values = (0..100).map(|idx| if idx < 3 { 10.0 } else { 4.0 - f64::from(idx) * 0.01 });
        let (lo, hi, clipped) = robust_range(Spread::of(values).unwrap());
        assert!((3.0..3.1).contains(&lo) && hi < 5.0);
        assert_eq!(clipped, Some(10.0));
    }
}
