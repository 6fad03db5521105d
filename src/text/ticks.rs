//! Round numbers on an axis: their spacing, positions and labels, on a screen and in a figure.

/// The smallest of 1, 2 and 5 times a power of ten that is at least `least`.
pub(crate) fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= least * (1.0 - 1e-9))
        .unwrap_or(10.0);
    factor * power
}

/// The multiples of `step` from `lo` to `hi`, and at least one.
pub(crate) fn multiples(step: f64, lo: f64, hi: f64) -> impl Iterator<Item = f64> {
    // Computed from an index, so that rounding errors do not add up.
    let first = (lo / step - 1e-9).ceil();
    let last = (hi / step + 1e-9).floor();
    (0..=(last - first) as usize).map(move |idx| (first + idx as f64) * step)
}

/// Decimal places that distinguish multiples of `step`.
pub(crate) fn decimals(step: f64) -> usize {
    // The difference of two ticks may be a little less than their spacing.
    (-(step * 1.000_001).log10().floor()).max(0.0) as usize
}

/// `tick` with this many decimal places; rounding produces no negative zero.
pub(crate) fn label(tick: f64, decimals: usize) -> String {
    let text = format!("{tick:.decimals$}");
    match text.strip_prefix('-') {
        Some(size) if size.chars().all(|char| matches!(char, '0' | '.')) => size.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_labels_as_short_as_their_spacing_allows() {
        for (least, lo, hi, want) in [
            (0.3, 3.0, 4.2, "3.0 3.5 4.0"),
            (0.02, -0.03, 0.03, "-0.02 0.00 0.02"),
            (3.0, 1.0, 19.0, "5 10 15"),
            (60.0, 0.0, 250.0, "0 100 200"),
        ] {
            let step = round_step(least);
            let labels = multiples(step, lo, hi).map(|tick| label(tick, decimals(step)));
            assert_eq!(labels.collect::<Vec<_>>().join(" "), want);
        }
        assert_eq!((label(-1e-9, 2), label(-0.0, 0)), ("0.00".into(), "0".into()));
    }
}
