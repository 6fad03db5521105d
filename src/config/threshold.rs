//! The threshold above which a neuron counts as active.

use std::fmt;
use std::str::FromStr;

/// A threshold for |x|, written `0.5`, or `1.5x` for a multiple of the mean |x| of the layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ActivationThreshold {
    /// The same number in every layer, as in the paper.
    Absolute(f64),
    /// This multiple of the layer's own mean |x|: compares the shapes of distributions instead of
    /// their scale.
    TimesMean(f64),
}

impl FromStr for ActivationThreshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, kind): (_, fn(f64) -> Self) = match text.trim().strip_suffix(['x', 'X']) {
            Some(factor) => (factor, Self::TimesMean),
            None => (text.trim(), Self::Absolute),
        };
        let complaint = || {
            format!(
                "{text:?} is not a threshold: write a number, e.g. 0.5, or a multiple of the \
                 layer's mean, e.g. 1.5x"
            )
        };
        number
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number >= 0.0)
            .map(kind)
            .ok_or_else(complaint)
    }
}

impl fmt::Display for ActivationThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(number) => write!(f, "{number}"),
            Self::TimesMean(factor) => write!(f, "{factor} x mean"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_number_or_a_multiple_of_the_mean() {
        let read = |text: &str| text.parse::<ActivationThreshold>().ok();
        assert_eq!(read("0.5"), Some(ActivationThreshold::Absolute(0.5)));
        assert_eq!(read(" 2x "), Some(ActivationThreshold::TimesMean(2.0)));
        assert_eq!(read("0"), Some(ActivationThreshold::Absolute(0.0)));
        for bad in ["", "x", "-1", "NaN", "inf", "1y", "0.5 0.6"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
