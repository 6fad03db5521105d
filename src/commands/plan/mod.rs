//! `patchtui plan`: the plan of a configuration, without training.
//!
//! Start at [`plan`]; `document.rs` describes its JSON, `lines.rs` makes its lines, and
//! `bench::speed` measures its speeds.

mod computer;
pub mod document;
pub mod lines;

use crate::advice::Failure;
use crate::cli::PlanArgs;
use crate::commands::plan::computer::Computer;
use crate::commands::plan::document::PlanDocument;
use crate::commands::plan::lines::lines;
use crate::commands::{Runs, load_config, parse_device};
use crate::config::{Budget, LoadedConfig, RunConfig, TextSource};
use crate::data::{Inputs, PrepareRequest, TextRules};
use crate::host::{PlanInputs, check_memory, corpus, token_cache};
use crate::machine::memory::available_memory;
use crate::plan::{Corpus, DeviceKind, GENERATED_TOKENS, Measured, RunPlan, block_tokens};
use crate::record::RunDirectory;
use crate::report::print;
use crate::tasks::Suite;
use crate::text::{sanitize, sanitize_line};

/// Prints the plan of a configuration. Returns the exit code.
///
/// Works without the files of a built-in configuration: the assumptions made instead are among the
/// warnings. Files that the user has named must exist: without them the plan is printed and the
/// command fails.
///
/// # Errors
/// When the configuration has no valid plan, or a run could not be started from it.
pub fn plan(args: &PlanArgs, runs: &Runs) -> Result<u8, Failure> {
    let LoadedConfig { mut config, origins } = load_config(&args.config, runs)?;
    if let Some(device) = &args.device {
        config.device = parse_device(device)?;
    }
    let inputs = PlanInputs::find(&config)?;
    let computer = Computer::of(&config)?;
    let mut plan = plan_of_text(&config, &inputs, computer.kind())?;
    plan.warnings.extend(inputs.assumptions());
    if inputs.missing.is_empty() {
        plan.warnings.extend(check_text(
            &config,
            &plan,
            &RunDirectory::new(runs.folder.join(&config.name)),
        )?);
    }
    let memory_warning =
        if computer.kind() == DeviceKind::Cpu { memory_warning(&config, &plan) } else { None };
    let measured = match memory_warning {
        None => computer.measure(&config, &plan)?,
        Some(_) => Measured::default(),
    };
    plan.warnings.extend(memory_warning);
    let limit = config.training.max_walltime.filter(|_| !measured.speeds.is_empty());
    plan.warnings.extend(
        limit.and_then(|limit| plan.walltime_warning(limit.0, &measured.tokens_per_second())),
    );
    let text = if args.json {
        sanitize::json(&PlanDocument::new(&config, &plan, &measured).to_json()?).into_owned()
    } else {
        lines(&config, &plan, &measured)
            .iter()
            .map(|line| sanitize_line(line))
            .collect::<Vec<_>>()
            .join("\n")
    };
    print(&(text + "\n"))?;
    inputs.first_named_by_user(&origins).map_or(Ok(0), |error| Err(error.into()))
}

/// The plan for the text that was found, with an estimated length.
fn plan_of_text(
    config: &RunConfig,
    inputs: &PlanInputs,
    device: DeviceKind,
) -> Result<RunPlan, Failure> {
    let block_tokens = block_tokens(config)?;
    let train_tokens = match (config.data.source(), config.training.budget()) {
        (TextSource::Generated(_), Budget::Epochs(_)) => {
            Some(GENERATED_TOKENS.next_multiple_of(block_tokens))
        }
        (TextSource::Generated(_), _) => None,
        // With an estimate the number of dropped tokens of the last block is unknown.
        (TextSource::Files(_), _) => inputs
            .train_tokens
            .map(|tokens| tokens / block_tokens * block_tokens)
            .filter(|tokens| *tokens > 0),
    };
    let corpus = Corpus { train_tokens, ..corpus(config, inputs.tokenizer.as_ref())? };
    Ok(RunPlan::new(config, &corpus, device)?)
}

/// Checks of text and tasks that `run` makes too; returns a warning if the tokens may not fit on
/// the disk.
fn check_text(
    config: &RunConfig,
    plan: &RunPlan,
    directory: &RunDirectory,
) -> Result<Option<String>, Failure> {
    let request = PrepareRequest {
        data: &config.data,
        seed: config.seed,
        generated_tokens: plan.cost.tokens,
        block_tokens: plan.block_tokens,
        cache: &token_cache(directory),
        trained_on: None,
        rules: TextRules::Current,
    };
    let warning = Inputs::find(&config.data)?.check_sizes(&request)?;
    Suite::load(&config.tasks.names, config.tasks.data.as_deref(), config.tasks.limit)?;
    Ok(warning)
}

/// The memory warning or error of `run` on this machine.
fn memory_warning(config: &RunConfig, plan: &RunPlan) -> Option<String> {
    match check_memory(config, plan, available_memory()?) {
        Ok(warning) => warning,
        Err(refusal) => {
            let hint = refusal.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            Some(format!("a run would be refused on this machine: {}{hint}", refusal.message))
        }
    }
}
