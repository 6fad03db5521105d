//! `patchtui plan`: what a configuration leads to, on paper.

use std::io::{self, Write};

use serde_json::json;

use crate::cli::PlanArgs;
use crate::commands::{CommandError, load_config};
use crate::config::{DeviceChoice, RunConfig, TextSource};
use crate::data::{self, Tokenizer, grammar::Grammar};
use crate::plan::{Corpus, PlanError, RunPlan};
use crate::report::format;

/// A larger network is not built just to be timed: its plan must not need the memory that it warns of.
#[cfg(feature = "engine")]
const MOST_MEASURED: u64 = 50_000_000;

/// Prints the plan of a configuration. Returns the exit code.
///
/// # Errors
/// When no plan follows from it.
pub fn plan(args: &PlanArgs) -> Result<u8, CommandError> {
    let mut config = load_config(&args.config)?.config;
    if let Some(device) = &args.device {
        config.device = device.parse::<DeviceChoice>().map_err(|message| CommandError::usage(message, "use --device auto or --device cpu"))?;
    }
    data::check(&config.data)?;
    let plan = paper_plan(&config)?.ok_or(PlanError::CorpusUnknown)?;
    let speeds = stage_speeds(&config, &plan)?;
    let text = if args.json { json_document(&plan, &speeds)? } else { lines(&plan, &speeds).join("\n") };
    // A reader that went away has seen enough.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(0)
}

/// The plan as far as it is known before the text is prepared; `None` if the budget is counted in its length.
///
/// # Errors
/// When the numbers do not fit together, or the tokenizer cannot be loaded.
pub fn paper_plan(config: &RunConfig) -> Result<Option<RunPlan>, CommandError> {
    let tokenizer = Tokenizer::load(&config.data.tokenizer)?;
    let entropy_rate = match config.data.source() {
        TextSource::Generated(_) => Grammar::built_in().entropy_rate(&tokenizer, usize::from(config.data.add_bos) + usize::from(config.data.add_eos))?,
        TextSource::Files(_) => None,
    };
    let device_is_cpu = matches!(config.device, DeviceChoice::Auto | DeviceChoice::Cpu);
    let corpus = Corpus { tokenizer_vocab_size: tokenizer.vocab_size(), train_tokens: None, entropy_rate, device_is_cpu };
    match RunPlan::new(config, &corpus) {
        Ok(plan) => Ok(Some(plan)),
        Err(PlanError::CorpusUnknown) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tokens per second of each stage on this device, if this build can measure it.
#[cfg(feature = "engine")]
fn stage_speeds(config: &RunConfig, plan: &RunPlan) -> Result<Vec<f64>, CommandError> {
    if plan.num_parameters > MOST_MEASURED {
        return Ok(Vec::new());
    }
    let device = crate::engine::device::find_device(config.device)?.with_threads(std::thread::available_parallelism().map_or(1, usize::from));
    crate::engine::measure_speeds(plan, &device).map_err(|error| CommandError::failed(error.to_string(), "try --device cpu"))
}

#[cfg(not(feature = "engine"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as with the engine")]
fn stage_speeds(_config: &RunConfig, _plan: &RunPlan) -> Result<Vec<f64>, CommandError> {
    Ok(Vec::new())
}

fn lines(plan: &RunPlan, speeds: &[f64]) -> Vec<String> {
    let model = &plan.model;
    let count = format::count;
    let mut lines = vec![
        format!(
            "model    {} parameters: {} layers, hidden {}, intermediate {}, {} heads ({} for keys and values), vocabulary {}",
            count(plan.num_parameters),
            model.num_hidden_layers,
            model.hidden_size,
            model.intermediate_size,
            model.num_attention_heads,
            model.num_key_value_heads,
            model.vocab_size
        ),
        format!(
            "run      {} steps, {} tokens, {} positions, {}",
            plan.steps,
            count(plan.cost.tokens),
            count(plan.cost.positions),
            format::flops(plan.cost.flops)
        ),
        format!("cost     {:.3} of token-level training on the same tokens", plan.relative_cost()),
    ];
    for (idx, stage) in plan.stages.iter().enumerate() {
        let cost = stage.cost(stage.steps);
        let time =
            speeds.get(idx).map_or_else(String::new, |speed| format!(", {} at {} tok/s", format::duration(cost.tokens as f64 / speed), format::rate(*speed)));
        lines.push(format!(
            "stage {}  K = {}: {} steps of {} tokens ({} sequences of {} positions, {} at a time), {}{time}",
            idx + 1,
            stage.patch_size,
            stage.steps,
            stage.tokens_per_step,
            stage.sequences_per_step(),
            stage.context_length,
            stage.micro_batch_size,
            format::flops(cost.flops)
        ));
        lines.push(format!(
            "         learning rate to {:e} in {} steps, then {:?} to {:e}; moments {:?} at its start",
            stage.schedule.peak, stage.schedule.warmup_steps, stage.schedule.kind, stage.schedule.minimum, stage.optimizer_state
        ));
    }
    lines.push(format!(
        "memory   {} for weights, gradients and moments, about {} for activations",
        format::bytes(plan.memory.state),
        format::bytes(plan.memory.activations)
    ));
    lines.push(format!("disk     {} per checkpoint", format::bytes(plan.memory.checkpoint)));
    if let Some(rate) = plan.entropy_rate {
        lines.push(format!("text     true entropy rate {rate:.4} nats per token: no model can get below it"));
    }
    lines.extend(plan.warnings.iter().map(|warning| format!("warning  {warning}")));
    lines
}

fn json_document(plan: &RunPlan, speeds: &[f64]) -> Result<String, CommandError> {
    let document = json!({ "plan": plan, "tokens_per_second": speeds, "relative_cost": plan.relative_cost() });
    serde_json::to_string_pretty(&document).map_err(|error| CommandError::failed(error.to_string(), "report this as a mistake of patchtui"))
}
