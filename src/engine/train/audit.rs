//! Computes a micro-batch a second time and compares the results: faulty hardware may occasionally
//! produce finite, plausible numbers, which no other check notices (arXiv 2605.04213).
//!
//! On the CPU the order of every sum is fixed, so a single different bit is a fault. A GPU may add
//! in another order. Start at [`audit`].

use std::fmt;

use burn::tensor::Tensor;

use crate::engine::error::EngineError;
use crate::engine::objective::StepText;
use crate::engine::self_check::step_tolerance;
use crate::engine::train::accumulate::{Accumulation, Computing};

/// Two results of the same computation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// What differs: the loss, or the weight whose gradient differs.
    what: String,
    /// Largest difference, relative to the largest value.
    difference: f64,
    /// Loss of the micro-batch in the first and the second computation.
    losses: [f64; 2],
}

/// Computes the first micro-batch of `text` again and compares it with `first`, which contains
/// nothing else.
///
/// Needs memory for a second set of gradients. Returns the largest difference, if it is above the
/// tolerance.
///
/// # Errors
/// When the device fails, or the text cannot be read.
pub(super) fn audit(
    first: &Accumulation,
    with: Computing<'_>,
    text: StepText<'_>,
) -> Result<Option<Mismatch>, EngineError> {
    let mut again = Accumulation::default();
    let (batch, stop) = (text.batch(0)?, with.workers.stop.clone());
    if !again.add(with, batch, move || stop.is_raised()) {
        return Ok(None);
    }
    let compute = &with.workers.compute;
    let tolerance = if compute.device.is_cpu { 0.0 } else { step_tolerance(compute.precision) };
    compare(first, &again, tolerance)
}

/// The largest difference between two sums, if above `tolerance`, relative to the largest value.
fn compare(
    first: &Accumulation,
    again: &Accumulation,
    tolerance: f64,
) -> Result<Option<Mismatch>, EngineError> {
    let mut worst: Option<(String, f64)> = None;
    for ((name, first), (_, again)) in first.results().zip(again.results()) {
        let difference = difference(&numbers(first)?, &numbers(again)?);
        let is_worst = worst.as_ref().is_none_or(|(_, worst)| difference > *worst);
        if difference > tolerance && is_worst {
            worst = Some((name, difference));
        }
    }
    let Some((what, difference)) = worst else { return Ok(None) };
    let loss = |sum: &Accumulation| {
        sum.results()
            .next()
            .map_or(Ok(f64::NAN), |(_, loss)| numbers(loss).map(|loss| f64::from(loss[0])))
    };
    Ok(Some(Mismatch { what, difference, losses: [loss(first)?, loss(again)?] }))
}

fn numbers(tensor: Tensor<2>) -> Result<Vec<f32>, EngineError> {
    Ok(tensor.try_into_data()?.iter::<f32>().collect())
}

/// The largest difference divided by the largest value; not 0 if a single bit differs.
fn difference(first: &[f32], again: &[f32]) -> f64 {
    if first.iter().map(|value| value.to_bits()).eq(again.iter().map(|value| value.to_bits())) {
        return 0.0;
    }
    let largest = first
        .iter()
        .fold(f64::from(f32::MIN_POSITIVE), |largest, value| largest.max(f64::from(value.abs())));
    let worst = first
        .iter()
        .zip(again)
        .fold(0.0, |worst: f64, (a, b)| worst.max((f64::from(*a) - f64::from(*b)).abs()));
    let share = worst / largest;
    if share.is_nan() { f64::INFINITY } else { share.max(f64::MIN_POSITIVE) }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, difference, losses: [first, again] } = self;
        write!(
            f,
            "computed twice, its {what} differs by {difference:.1e} of the largest value (loss \
             {first} and {again})"
        )
    }
}
