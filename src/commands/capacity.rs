//! Whether a run fits on this machine, asked before anything is allocated or written.
//!
//! Refuses only what cannot work; what may not work is a warning. Start at [`check_memory`].

use crate::commands::CommandError;
use crate::config::RunConfig;
use crate::plan::{MemoryNeed, RunPlan};
use crate::report::format;

/// Threads that compute when the configuration asks for `threads`; 0 stands for all.
#[must_use]
pub fn num_threads(threads: usize) -> usize {
    if threads > 0 { threads } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Checks that training on the CPU fits into `available` bytes. Returns a warning if that is not certain.
///
/// # Errors
/// When it cannot fit.
pub fn check_memory(config: &RunConfig, plan: &RunPlan, available: u64) -> Result<Option<String>, CommandError> {
    let threads = num_threads(config.threads);
    let need = MemoryNeed::new(plan, config, threads);
    if need.expected <= available {
        return Ok(None);
    }
    let hint = way_out(config, plan, available);
    let free = format::bytes(available);
    if need.least > available {
        let message = format!(
            "training needs at least {} of memory ({} parameters; about {} is expected), but only {free} is available",
            format::bytes(need.least),
            format::count(plan.num_parameters),
            format::bytes(need.expected),
        );
        return Err(CommandError::usage(message, hint));
    }
    Ok(Some(format!("training may need up to {} of memory, and {free} is available; if it fails: {hint}", format::bytes(need.expected))))
}

/// What to change so that the run fits.
fn way_out(config: &RunConfig, plan: &RunPlan, available: u64) -> String {
    let threads = num_threads(config.threads);
    if let Some(largest) = MemoryNeed::largest_micro_batch(plan, config, threads, available) {
        return format!("use training.micro_batch_size = {largest}{}", in_stages(config, largest));
    }
    if let Some(largest) = MemoryNeed::largest_micro_batch(plan, config, 1, available) {
        return format!("use threads = 1 and training.micro_batch_size = {largest}{}", in_stages(config, largest));
    }
    if MemoryNeed::with_micro_batches(plan, config, 1, 1).least <= available {
        return format!("try threads = 1 and training.micro_batch_size = 1{}, or choose smaller sizes under [model]", in_stages(config, 1));
    }
    "the model is too large for this machine: choose smaller sizes under [model], like model.preset = \"demo\"".into()
}

/// A stage may have a micro-batch of its own, which then has to shrink too.
fn in_stages(config: &RunConfig, largest: usize) -> &'static str {
    let is_larger = |size: Option<usize>| size.is_some_and(|size| size > largest);
    if config.stages.iter().any(|stage| is_larger(stage.micro_batch_size)) { ", and no larger one in a stage" } else { "" }
}
