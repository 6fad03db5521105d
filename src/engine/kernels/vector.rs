//! Loops for the widest vectors of the CPU, and the functions they use.
//!
//! The loops are plain Rust over slices: inside [`best!`](best) the compiler knows the instruction
//! set and vectorizes them. Sums are kept in [`LANES`] parts whatever the vector width, and nothing
//! is contracted into fused multiply-adds, so that all CPUs get the same numbers from these
//! kernels.

#![expect(
    clippy::inline_always,
    reason = "only code inlined into the closure of `best` is compiled for the instruction set"
)]

use std::sync::LazyLock;

use pulp::Arch;

/// Parts of a sum over a row.
pub(super) const LANES: usize = 16;

/// Instruction set of this CPU; detected once.
pub(super) static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// Runs loops compiled for the best instruction set of this CPU. A macro, since a closure that is
/// not inlined would be compiled for the baseline.
macro_rules! best {
    ($loops:expr) => {
        $crate::engine::kernels::vector::dispatch(
            #[inline(always)]
            || $loops,
        )
    };
}
pub(super) use best;

/// Calls `loops` where the compiler knows the best instruction set of this CPU.
#[inline(always)]
pub(super) fn dispatch<R>(loops: impl FnOnce() -> R) -> R {
    struct Loops<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Loops<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    ARCH.dispatch(Loops(loops))
}

/// Just above -125.5 ln(2): below, the power of two in [`exp`] would not be a normal number.
const LEAST_EXPONENT: f32 = -86.989;

/// The exponential function: relative error below 2e-7, 0 below [`LEAST_EXPONENT`], NaN for NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // 2^n e^r with n an integer and |r| <= ln(2) / 2. Adding and subtracting 1.5 * 2^23 rounds to
    // the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let clamped = if x > 88.722_8 { 88.722_8 } else { x };
    let clamped = if clamped < LEAST_EXPONENT { LEAST_EXPONENT } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    // Minimax polynomial of (e^r - 1 - r) / r^2 (Cephes, expf).
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    let power = p * (r * r) + r + 1.0;
    // 2^(n - 1) and twice that, since 2^128 is not a number.
    let bits = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(126)) << 23;
    let value = power * f32::from_bits(bits) * 2.0;
    if x < LEAST_EXPONENT {
        0.0
    } else if x > 88.722_8 {
        f32::INFINITY
    } else {
        value
    }
}

/// The logistic function `1 / (1 + e^-x)`.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Threshold below which kernels flush factors of later products to zero.
pub(super) const TINY: f32 = 1e-30;

/// `x`, or 0 if its absolute value is below `least`.
///
/// An operation with a subnormal operand or result (below 1.2e-38, not 0) takes a CPU a hundred
/// times as long as others. A network with saturated gates or attention produces millions of them,
/// and its steps took up to 2.3 times as long (docs/results/speed.md).
#[inline(always)]
pub(super) fn settled(x: f32, least: f32) -> f32 {
    if x.abs() < least { 0.0 } else { x }
}

/// The sum of `term` over the columns of `N` rows of equal length, in an order that depends on the
/// length alone.
#[inline(always)]
pub(super) fn sum<const N: usize>(rows: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let length = rows[0].len();
    let whole = length - length % LANES;
    for start in (0..whole).step_by(LANES) {
        // Arrays of a known length: no bounds checks remain inside, so that the loop is vectorized.
        let chunks: [&[f32; LANES]; N] =
            rows.map(|row| row[start..start + LANES].try_into().expect("a chunk has this length"));
        for lane in 0..LANES {
            lanes[lane] += term(chunks.map(|chunk| chunk[lane]));
        }
    }
    for idx in whole..length {
        lanes[idx - whole] += term(rows.map(|row| row[idx]));
    }
    reduce(lanes, |a, b| a + b)
}

/// The maximum of `values`; may be NaN if one of them is NaN.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (largest, value) in lanes.iter_mut().zip(chunk) {
            *largest = larger(*largest, *value);
        }
    }
    for (largest, value) in lanes.iter_mut().zip(rest) {
        *largest = larger(*largest, *value);
    }
    reduce(lanes, larger)
}

#[inline(always)]
fn reduce(lanes: [f32; LANES], pair: impl Fn(f32, f32) -> f32) -> f32 {
    let mut values = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for idx in 0..width {
            values[idx] = pair(values[idx], values[idx + width]);
        }
        width /= 2;
    }
    values[0]
}

/// Log-sum-exp of `values`.
#[inline(always)]
pub(super) fn log_sum_exp(values: &[f32]) -> f32 {
    let largest = max(values);
    let total = sum(
        [values],
        #[inline(always)]
        |[value]| exp(value - largest),
    );
    largest + total.ln()
}

/// Replaces a row of scores by its softmax; returns the maximum score and the sum of the
/// exponentials relative to it.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32]) -> (f32, f32) {
    let largest = max(row);
    for value in row.iter_mut() {
        *value = exp(*value - largest);
    }
    let total = sum([row], |[value]| value);
    let scale = 1.0 / total;
    for value in row.iter_mut() {
        *value *= scale;
    }
    (largest, total)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these values are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_exponential_is_that_of_f64(x in LEAST_EXPONENT..88.0) {
            let expected = f64::from(x).exp();
            for found in [exp(x), best!(exp(x))] {
                prop_assert!((f64::from(found) / expected - 1.0).abs() < 2e-7, "{x}: {found} instead of {expected}");
            }
        }

        #[test]
        fn sums_and_maxima_are_those_of_plain_loops(values in prop::collection::vec(-1.0_f32..1.0, 1..100)) {
            let expected: f64 = values.iter().map(|value| f64::from(*value)).sum();
            prop_assert!((f64::from(best!(sum([&values], |[value]| value))) - expected).abs() < 1e-5);
            prop_assert_eq!(best!(max(&values)), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }

    #[test]
    fn the_ends_of_the_exponential() {
        assert!(
            (f64::from(exp(LEAST_EXPONENT)) / f64::from(LEAST_EXPONENT).exp() - 1.0).abs() < 2e-7
        );
        assert_eq!(exp(-86.99), 0.0, "flushed to zero");
        assert_eq!(
            [exp(f32::NEG_INFINITY), exp(-100.0), exp(0.0), exp(100.0), exp(f32::INFINITY)],
            [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]
        );
        assert!(exp(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
        assert_eq!(
            [sigmoid(f32::NEG_INFINITY), sigmoid(0.0), sigmoid(f32::INFINITY)],
            [0.0, 0.5, 1.0]
        );
    }

    #[test]
    fn a_softmax_with_a_nan_is_nan() {
        let mut row = [0.0, f32::NAN, 1.0];
        softmax(&mut row);
        assert!(row[0].is_nan() || row[1].is_nan());
    }
}
