//! `patchtui plan`: the plan of a configuration, without training.
//!
//! Start at [`plan`]; its JSON is described in `plan_document.rs`, its lines are made in `plan_lines.rs`.

use std::io::{self, Write};

use crate::cli::PlanArgs;
use crate::commands::capacity::check_memory;
use crate::commands::machine::available_memory;
use crate::commands::plan_document::PlanDocument;
use crate::commands::plan_lines::lines;
use crate::commands::{CommandError, load_config};
use crate::config::{DeviceChoice, RunConfig, TextSource};
use crate::data::{DataError, Inputs, Tokenizer, find_files, grammar::Grammar};
use crate::plan::{Corpus, PlanError, RunPlan};
use crate::run::{sanitize, sanitize_line};

/// Vocabulary of a tokenizer that is not there, when `model.vocab_size` does not say: that of LLaMA-2, as in the paper.
const ASSUMED_VOCAB_SIZE: usize = 32_000;

/// Parameters of the largest network that is built to be timed: planning must not need the memory that it warns of.
#[cfg(feature = "engine")]
const MOST_MEASURED: u64 = 50_000_000;
/// Floating-point operations of the longest trial: beyond them a CPU takes minutes.
#[cfg(feature = "engine")]
const MOST_TRIAL_FLOPS: f64 = 1e12;

/// Prints the plan of a configuration. Returns the exit code.
///
/// Works without the files that the configuration names: assumptions in their place are listed among the warnings.
///
/// # Errors
/// When the configuration has no valid plan.
pub fn plan(args: &PlanArgs) -> Result<u8, CommandError> {
    let mut config = load_config(&args.config)?.config;
    if let Some(device) = &args.device {
        config.device = device.parse::<DeviceChoice>().map_err(|message| CommandError::usage(message, "use --device auto or --device cpu"))?;
    }
    let mut assumptions = Vec::new();
    let tokenizer = tokenizer_if_there(&config, &mut assumptions)?;
    let mut plan = plan_before_preparation(&config, tokenizer.as_ref())?.ok_or(PlanError::CorpusUnknown)?;
    plan.warnings.extend(assumptions);
    let memory_warning = if computes_on_cpu(&config)? { memory_warning(&config, &plan) } else { None };
    let speeds = if memory_warning.is_none() { stage_speeds(&config, &plan)? } else { Vec::new() };
    plan.warnings.extend(memory_warning);
    let text = if args.json {
        sanitize::json(&PlanDocument::new(&config, &plan, &speeds).to_json()?).into_owned()
    } else {
        lines(&config, &plan, &speeds).iter().map(|line| sanitize_line(line)).collect::<Vec<_>>().join("\n")
    };
    // A closed pipe is no error.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(0)
}

/// The plan as far as it is known before the text is prepared; `None` if the budget is counted in its length.
///
/// Without a `tokenizer` the vocabulary is that of the configuration, or the paper's.
///
/// # Errors
/// When the numbers do not fit together.
pub fn plan_before_preparation(config: &RunConfig, tokenizer: Option<&Tokenizer>) -> Result<Option<RunPlan>, CommandError> {
    let special_tokens = usize::from(config.data.add_bos) + usize::from(config.data.add_eos);
    let entropy_rate = match (config.data.source(), tokenizer) {
        (TextSource::Generated(_), Some(tokenizer)) => Grammar::built_in().entropy_rate(tokenizer, special_tokens)?,
        (TextSource::Generated(_), None) | (TextSource::Files(_), _) => None,
    };
    let corpus = Corpus {
        tokenizer_vocab_size: tokenizer.map_or_else(|| assumed_vocab_size(config), Tokenizer::vocab_size),
        train_tokens: None,
        entropy_rate,
        device_is_cpu: matches!(config.device, DeviceChoice::Auto | DeviceChoice::Cpu),
    };
    match RunPlan::new(config, &corpus) {
        Ok(plan) => Ok(Some(plan)),
        Err(PlanError::CorpusUnknown) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn assumed_vocab_size(config: &RunConfig) -> usize {
    config.model.vocab_size.unwrap_or(ASSUMED_VOCAB_SIZE)
}

/// Loads the tokenizer and checks the files; adds an assumption for each that is missing.
pub(super) fn tokenizer_if_there(config: &RunConfig, assumptions: &mut Vec<String>) -> Result<Option<Tokenizer>, CommandError> {
    match Inputs::find(&config.data) {
        Ok(inputs) => return Ok(Some(inputs.tokenizer().clone())),
        Err(DataError::NoTokenizerFile { .. } | DataError::NothingMatches { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let tokenizer = match Tokenizer::load(&config.data.tokenizer) {
        Ok(tokenizer) => Some(tokenizer),
        Err(error @ DataError::NoTokenizerFile { .. }) => {
            let source = if config.model.vocab_size.is_some() { "model.vocab_size" } else { "the paper's" };
            assumptions.push(format!("{error}: this plan assumes a vocabulary of {} tokens ({source})", assumed_vocab_size(config)));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let patterns = [config.data.files.as_deref(), config.data.validation_files.as_deref()];
    for patterns in patterns.into_iter().flatten() {
        match find_files(patterns) {
            Ok(_) => {}
            Err(error @ DataError::NothingMatches { .. }) => assumptions.push(format!("{error}: the plan does not need it, but a run does")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tokenizer)
}

/// What `run` would say about the memory of this machine.
fn memory_warning(config: &RunConfig, plan: &RunPlan) -> Option<String> {
    match check_memory(config, plan, available_memory()?) {
        Ok(warning) => warning,
        Err(refusal) => {
            let hint = refusal.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            Some(format!("this machine cannot train it: {}{hint}", refusal.message))
        }
    }
}

#[cfg(feature = "engine")]
fn computes_on_cpu(config: &RunConfig) -> Result<bool, CommandError> {
    let device = crate::engine::device::find_device(crate::commands::devices::resolve(config.device)?.0)?;
    device.check_precision(config.training.precision)?;
    Ok(device.is_cpu)
}

#[cfg(not(feature = "engine"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with the engine")]
fn computes_on_cpu(config: &RunConfig) -> Result<bool, CommandError> {
    Ok(matches!(config.device, DeviceChoice::Auto | DeviceChoice::Cpu))
}

/// Tokens per second of each stage on this device, if this build can measure it and it does not take long.
#[cfg(feature = "engine")]
fn stage_speeds(config: &RunConfig, plan: &RunPlan) -> Result<Vec<f64>, CommandError> {
    let device = crate::engine::device::find_device(crate::commands::devices::resolve(config.device)?.0)?;
    let trial_flops = plan.stages.iter().map(|stage| (stage.micro_batch_size * stage.context_length) as f64 * stage.flops_per_position);
    let is_long = device.is_cpu && trial_flops.fold(0.0, f64::max) > MOST_TRIAL_FLOPS;
    if plan.num_parameters > MOST_MEASURED || is_long {
        return Ok(Vec::new());
    }
    crate::engine::allocator::keep_freed_memory();
    crate::engine::measure_speeds(plan, &config.training, &device).map_err(|error| CommandError::failed(error.to_string(), "try --device cpu"))
}

#[cfg(not(feature = "engine"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with the engine")]
fn stage_speeds(_config: &RunConfig, _plan: &RunPlan) -> Result<Vec<f64>, CommandError> {
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{BUILT_IN, LoadRequest, load};

    fn config(source: &str, sets: &[&str]) -> RunConfig {
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        load(&LoadRequest { source, sets: &sets, current_dir: Path::new("/nowhere") }).unwrap().config
    }

    #[test]
    fn every_built_in_configuration_is_planned_without_its_files() {
        // Without its weights, `continue` has no sizes.
        for (name, _) in BUILT_IN.into_iter().filter(|(name, _)| *name != "continue") {
            let config = config(name, &[]);
            let mut assumptions = Vec::new();
            let tokenizer = tokenizer_if_there(&config, &mut assumptions).unwrap();
            let plan = plan_before_preparation(&config, tokenizer.as_ref()).unwrap().unwrap();
            assert!(plan.steps > 0, "{name}");
            if name == "demo" {
                assert_eq!(assumptions, Vec::<String>::new());
                continue;
            }
            assert_eq!(plan.model.vocab_size, 32_000, "{name}");
            assert_eq!(
                assumptions,
                [
                    "tokenizer file /nowhere/tokenizer.json does not exist: this plan assumes a vocabulary of 32000 tokens (model.vocab_size)",
                    "/nowhere/data/*.jsonl matches no text file: the plan does not need it, but a run does",
                ]
            );
        }
    }

    #[test]
    fn a_missing_tokenizer_without_a_vocabulary_is_taken_for_the_paper_s() {
        let config = config("demo", &["data.tokenizer=absent.json"]);
        let mut assumptions = Vec::new();
        assert!(tokenizer_if_there(&config, &mut assumptions).unwrap().is_none());
        let plan = plan_before_preparation(&config, None).unwrap().unwrap();
        assert_eq!((plan.model.vocab_size, plan.entropy_rate), (32_000, None));
        assert_eq!(assumptions, ["tokenizer file /nowhere/absent.json does not exist: this plan assumes a vocabulary of 32000 tokens (the paper's)"]);
    }
}
