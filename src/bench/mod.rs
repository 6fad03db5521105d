//! Speed and memory, measured without a run: of training steps, of the preparation of text, of the
//! evaluation. What is measured and how: `docs/bench.md`.
//!
//! The engine defines what a step is; this module measures it and formats the results. Start at
//! [`train`], [`prepare`] and [`eval`]; [`speed`] measures the stages of a plan.

mod steps;

mod document;
mod lines;

mod against;
mod against_document;
mod against_lines;
mod reference;
mod scratch;

mod gpu;
mod peak_memory;

mod eval;
mod prepare;
pub mod speed;

use serde::Serialize;

use crate::advice::Failure;
use crate::bench::steps::Planned;
use crate::cli::BenchTrainArgs;
use crate::config::{DeviceChoice, RunConfig};
use crate::engine::device::ComputeDevice;
use crate::report::{print, print_json};

pub use eval::eval;
pub use prepare::prepare;

/// Opens the device of a configuration.
pub type OpenDevice = fn(DeviceChoice) -> Result<ComputeDevice, Failure>;

/// Measures training steps of `config`, alone or against another framework. Returns the exit code.
///
/// # Errors
/// When the configuration has no valid plan, the device fails, or the other framework is missing.
pub fn train(args: &BenchTrainArgs, config: RunConfig, open: OpenDevice) -> Result<u8, Failure> {
    let planned = Planned::new(args, config)?;
    let device = open(planned.config.device)?;
    if args.against.is_some() {
        return against::against(args, &planned, &device);
    }
    let document = steps::measure(args, &planned, &device)?;
    show(&document, args.json, lines::train_text)?;
    Ok(0)
}

/// Prints a document as JSON, or as `text`.
fn show<D: Serialize>(document: &D, json: bool, text: fn(&D) -> String) -> Result<(), Failure> {
    if !json {
        return Ok(print(&text(document))?);
    }
    let text = serde_json::to_string_pretty(document).map_err(|error| {
        Failure::failed(error.to_string(), "this is a bug in patchtui: please report it")
    })?;
    Ok(print_json(&text)?)
}

/// Sets the number of threads of this process.
fn use_threads(threads: usize) -> Result<(), Failure> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|error| {
        Failure::failed(
            format!("cannot use {threads} threads: {error}"),
            "remove the key threads from the configuration",
        )
    })
}

/// Median of `values`; NaN if there are none.
fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median([]).is_nan());
    }
}
