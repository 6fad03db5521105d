//! Checks whether a run fits on this machine, before anything is allocated or written.
//!
//! Refuses only what certainly cannot work; warns about what may fail. Start at [`check_memory`].

use crate::advice::Failure;
use crate::config::RunConfig;
use crate::plan::{MemoryNeed, RunPlan};
use crate::text::format;

/// Checks that training on the CPU fits into `available` bytes. Returns a warning if that is
/// uncertain.
///
/// # Errors
/// When it cannot fit.
pub fn check_memory(
    config: &RunConfig,
    plan: &RunPlan,
    available: u64,
) -> Result<Option<String>, Failure> {
    let need = MemoryNeed::new(plan, config);
    if need.expected <= available {
        return Ok(None);
    }
    let hint = memory_hint(config, plan, available);
    let free = format::bytes(available);
    if need.least > available {
        let message = format!(
            "training needs at least {} of memory ({} parameters; about {} expected), but only \
             {free} is available",
            format::bytes(need.least),
            format::count(plan.num_parameters),
            format::bytes(need.expected),
        );
        return Err(Failure::usage(message, hint));
    }
    Ok(Some(format!(
        "training will need about {} of memory, but only {free} is available; if it fails: {hint}",
        format::bytes(need.expected)
    )))
}

/// What to change so that the run fits.
fn memory_hint(config: &RunConfig, plan: &RunPlan, available: u64) -> String {
    if let Some(largest) = MemoryNeed::largest_micro_batch(plan, config, available) {
        return format!("use training.micro_batch_size = {largest}{}", in_stages(config, largest));
    }
    if MemoryNeed::with_micro_batches(plan, config, 1).least <= available {
        return format!(
            "try training.micro_batch_size = 1{}, or choose smaller sizes under [model]",
            in_stages(config, 1)
        );
    }
    "the model is too large for this machine: choose smaller sizes under [model], e.g. \
     model.preset = \"demo\""
        .into()
}

/// Suffix of a hint: a stage may override the micro-batch size, which must then shrink too.
fn in_stages(config: &RunConfig, largest: usize) -> &'static str {
    let is_larger = |size: Option<usize>| size.is_some_and(|size| size > largest);
    if config.stages.iter().any(|stage| is_larger(stage.micro_batch_size)) {
        ", and no larger value in any stage"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::plan::{Corpus, DeviceKind};

    fn planned(sets: &[&str]) -> (RunConfig, RunPlan) {
        let sets: Vec<String> =
            ["training.steps=100"].iter().chain(sets).map(ToString::to_string).collect();
        let config =
            load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") })
                .unwrap()
                .config;
        let corpus = Corpus { tokenizer_vocab_size: 1024, train_tokens: None, entropy_rate: None };
        let plan = RunPlan::new(&config, &corpus, DeviceKind::Cpu).unwrap();
        (config, plan)
    }

    #[test]
    fn only_what_cannot_work_is_refused() {
        let (config, plan) = planned(&["training.micro_batch_size=64"]);
        let need = MemoryNeed::new(&plan, &config);
        assert_eq!(check_memory(&config, &plan, need.expected).unwrap(), None);
        let warning = check_memory(&config, &plan, need.expected - 1).unwrap().unwrap();
        assert!(
            warning.starts_with("training will need about")
                && warning.contains("use training.micro_batch_size = "),
            "{warning}"
        );
        assert!(check_memory(&config, &plan, need.least).unwrap().is_some());
        let refusal = check_memory(&config, &plan, need.least - 1).unwrap_err();
        assert_eq!(refusal.exit_code, 2);
        assert!(refusal.message.starts_with("training needs at least "), "{refusal}");
    }

    #[test]
    fn the_hint_names_what_would_fit() {
        let (config, plan) = planned(&["training.micro_batch_size=64"]);
        let hint = |available: u64| memory_hint(&config, &plan, available);
        assert_eq!(hint(u64::MAX), "use training.micro_batch_size = 63");
        let one = MemoryNeed::with_micro_batches(&plan, &config, 1);
        assert_eq!(hint(one.expected), "use training.micro_batch_size = 1");
        assert_eq!(
            hint(one.expected - 1),
            "try training.micro_batch_size = 1, or choose smaller sizes under [model]"
        );
        assert!(hint(one.least - 1).starts_with("the model is too large for this machine"));
        let (own, plan) =
            planned(&["stages=[{patch_size=4,share=0.5,micro_batch_size=16},{patch_size=1}]"]);
        assert!(
            memory_hint(&own, &plan, one.expected)
                .ends_with("= 1, and no larger value in any stage")
        );
    }
}
