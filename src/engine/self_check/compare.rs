//! Compares a device with a reference, and judges the device.

use std::time::Instant;

use burn::tensor::ExecutionError;

use crate::config::{PatchSize, Precision};
use crate::engine::compute::Compute;
use crate::engine::device::ComputeDevice;
use crate::engine::self_check::cache::Cache;
use crate::engine::self_check::inputs::Place;
use crate::engine::self_check::operations::{ALL, Operation, Output};
use crate::engine::self_check::report::{Checked, Report};
use crate::engine::self_check::shapes::Shape;

/// Where and how one side computes.
#[derive(Debug, Clone)]
pub struct Side {
    /// Device and number formats.
    pub place: Place,
    /// The operations, the same on both sides unless a test alters one.
    pub operations: Vec<Operation>,
}

impl Side {
    /// All operations in `place`.
    pub fn new(place: Place) -> Self {
        Self { place, operations: ALL.to_vec() }
    }
}

/// Compares `device` with the CPU on `shapes`, unless `cache` has a passed check; `None` if
/// `progress` says that the run should end. The CPU itself is compared with its own double
/// precision.
///
/// `progress`: operations done, and total.
///
/// # Errors
/// When the device fails. Wrong results are no error here: they are in the report.
pub fn check(
    device: &ComputeDevice,
    shapes: &[Shape],
    cache: &Cache,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Report>, ExecutionError> {
    let precision = shapes.first().map_or(Precision::F32, |shape| shape.precision);
    device.spare_memory();
    let identity = device.identity();
    let nothing = Cache::none();
    // Another driver may compute differently: a check is stored only if the driver is known.
    let cache = if device.is_cpu || identity.as_ref().is_some_and(|identity| identity.names_driver)
    {
        cache
    } else {
        &nothing
    };
    let identity = identity.map_or_else(String::new, |identity| identity.description);
    let key = cache.key(&device.description, &identity, shapes);
    if let Some(report) = cache.passed(&key) {
        return Ok(Some(report));
    }
    let started = Instant::now();
    let host = Side::new(Place::new(Compute::cpu()));
    let (reference, tested) = if device.is_cpu {
        (Side::new(Place::double()), host)
    } else {
        (host, Side::new(Place::new(Compute::new(device.clone(), precision))))
    };
    let Some(operations) = compare(&reference, &tested, shapes, progress)? else { return Ok(None) };
    let seconds = started.elapsed().as_secs_f64();
    let report = Report {
        device: device.description.clone(),
        identity,
        precision,
        seconds,
        is_remembered: false,
        operations,
    };
    if report.failure().is_none() {
        cache.remember(&key, &report);
    }
    Ok(Some(report))
}

/// Compares both sides on `shapes`; `None` if `progress` says to stop.
///
/// # Errors
/// When a device fails.
pub fn compare(
    reference: &Side,
    tested: &Side,
    shapes: &[Shape],
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Vec<Checked>>, ExecutionError> {
    let jobs = jobs(reference, shapes);
    let mut checked = Vec::with_capacity(jobs.len());
    for (idx, (shape, place)) in jobs.iter().enumerate() {
        if !progress(idx, jobs.len()) {
            return Ok(None);
        }
        let (expected, found) = (&reference.operations[*place], &tested.operations[*place]);
        let expected_outputs = (expected.compute)(shape, &reference.place)?;
        let found_outputs = (found.compute)(shape, &tested.place)?;
        let (worst_output, difference) = furthest(&expected_outputs, &found_outputs);
        checked.push(Checked {
            operation: expected.name.to_owned(),
            patch_size: expected.knows_patches.then(|| shape.patch_size.get()),
            worst_output,
            difference,
            tolerance: expected.tolerance.of(shape.precision),
        });
    }
    Ok(Some(checked))
}

/// Every operation on every shape, by index, without shapes that are the same for that operation as
/// an earlier one.
fn jobs(side: &Side, shapes: &[Shape]) -> Vec<(Shape, usize)> {
    let mut jobs: Vec<(Shape, usize)> = Vec::new();
    for shape in shapes {
        for (idx, operation) in side.operations.iter().enumerate() {
            let seen = if operation.knows_patches {
                shape.clone()
            } else {
                Shape { patch_size: PatchSize::ONE, ..shape.clone() }
            };
            if !jobs.contains(&(seen.clone(), idx)) {
                jobs.push((seen, idx));
            }
        }
    }
    jobs
}

/// The output with the largest difference, relative to its largest value.
fn furthest(expected: &[Output], found: &[Output]) -> (String, f64) {
    if expected.len() != found.len() {
        return ("number of outputs".to_owned(), f64::INFINITY);
    }
    let differences = expected.iter().zip(found).map(|(expected, found)| {
        (expected.name.clone(), difference(&expected.values, &found.values))
    });
    differences.max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or_default()
}

/// The largest difference divided by the largest expected value; infinite if a number is not
/// finite.
fn difference(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() || !found.iter().all(|value| value.is_finite()) {
        return f64::INFINITY;
    }
    let largest = expected
        .iter()
        .fold(f64::from(f32::MIN_POSITIVE), |largest, value| largest.max(f64::from(value.abs())));
    let worst = expected
        .iter()
        .zip(found)
        .fold(0.0, |worst: f64, (a, b)| worst.max((f64::from(*a) - f64::from(*b)).abs()));
    worst / largest
}
