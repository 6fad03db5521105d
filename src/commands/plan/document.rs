//! The JSON of `patchtui plan --json`: a separate format, which stays stable while the planner
//! changes.
//!
//! Keys are only ever added. Start at [`PlanDocument`].

use serde::Serialize;

use crate::advice::Failure;
use crate::config::{OptimizerState, RunConfig, ScheduleKind};
use crate::plan::{CostedStage, Measured, MemoryNeed, RunPlan, RunSeconds, StagePlan, StageSpeed};
use crate::record::{CadenceOutline, CostOutline, MemoryOutline};

/// Incremented when a key is removed or changes its meaning.
const FORMAT_VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Serialize)]
pub struct PlanDocument {
    /// Version of this format.
    format_version: u32,
    /// Name of the run.
    name: String,
    /// Numbers derived from the configuration.
    plan: Planned,
    /// Tokens per second of each stage on this device; empty if not measured.
    tokens_per_second: Vec<f64>,
    /// How the speeds were measured; null if they were not.
    speed: Option<Speed>,
    /// Seconds of all training steps; null if no speed was measured.
    seconds: Option<Seconds>,
    /// Cost relative to token-level training on the same tokens: 0.5 is half.
    relative_cost: f64,
}

#[derive(Debug, Serialize)]
struct Planned {
    model: Model,
    /// Parameters; tied embeddings are counted once.
    num_parameters: u64,
    stages: Vec<Stage>,
    /// Optimizer steps of the run.
    steps: u64,
    cost: CostOutline,
    /// Floating-point operations of token-level training on the same tokens.
    token_level_flops: f64,
    /// Tokens of a block, the unit of the data order.
    block_tokens: u64,
    /// True entropy rate of generated text, in nats per token.
    entropy_rate: Option<f64>,
    cadences: CadenceOutline,
    memory: Bytes,
    /// Training tokens per parameter.
    tokens_per_parameter: f64,
    /// Tokens of the training text, estimated from a sample; null if it is missing or generated on
    /// demand.
    train_tokens: Option<u64>,
    /// Passes over the training text.
    epochs: Option<f64>,
    warnings: Vec<String>,
    /// Notes.
    notes: Vec<String>,
}

/// How the speed of the stages was measured, on random tokens.
#[derive(Debug, Serialize)]
struct Speed {
    /// What was measured instead and scaled up by its operations, e.g. `"1 of 24 layers"`; null:
    /// the network of the plan.
    scaled_from: Option<String>,
    stages: Vec<StageTimes>,
}

#[derive(Debug, Serialize)]
struct StageTimes {
    /// Tokens per second: median, slowest and fastest repetition.
    median: f64,
    slowest: f64,
    fastest: f64,
    /// 0: computed from the speed of the first stage.
    repetitions: usize,
    /// Whether the last three repetitions agree within 5 percent.
    is_stable: bool,
}

#[derive(Debug, Serialize)]
struct Seconds {
    expected: f64,
    /// At the highest measured speed.
    least: f64,
    /// At the lowest measured speed.
    most: f64,
}

/// Sizes under the names of Hugging Face's `config.json`.
#[derive(Debug, Serialize)]
struct Model {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    max_position_embeddings: usize,
    tie_word_embeddings: bool,
}

#[derive(Debug, Serialize)]
struct Stage {
    /// Tokens per patch (K).
    patch_size: usize,
    /// Optimizer steps of the run before this stage.
    first_step: u64,
    steps: u64,
    first_token: u64,
    /// Positions per sequence.
    context_length: usize,
    tokens_per_step: u64,
    sequences_per_step: usize,
    /// Sequences per forward pass.
    micro_batch_size: usize,
    num_micro_batches: usize,
    schedule: Rates,
    /// Whether the optimizer state is reset at the start of this stage.
    optimizer_state: OptimizerState,
    cost: CostOutline,
}

#[derive(Debug, Serialize)]
struct Rates {
    kind: ScheduleKind,
    /// Learning rate at the end of the warm-up.
    peak: f64,
    /// Learning rate at the end of the stage.
    minimum: f64,
    warmup_steps: u64,
    /// Steps of decay at the end of a `wsd` stage, else 0.
    decay_steps: u64,
}

#[derive(Debug, Serialize)]
struct Bytes {
    #[serde(flatten)]
    of_run: MemoryOutline,
    /// Minimum for training on the CPU of this machine.
    cpu_least: u64,
    /// Estimate for training on the CPU of this machine.
    cpu_expected: u64,
}

impl PlanDocument {
    /// Describes `plan`, with its measured speeds.
    #[must_use]
    pub fn new(config: &RunConfig, plan: &RunPlan, measured: &Measured) -> Self {
        let seconds = plan
            .seconds(&measured.speeds)
            .map(|RunSeconds { expected, least, most }| Seconds { expected, least, most });
        Self {
            format_version: FORMAT_VERSION,
            name: config.name.clone(),
            plan: Planned::new(config, plan),
            tokens_per_second: measured.tokens_per_second(),
            speed: seconds.is_some().then(|| Speed::new(measured)),
            seconds,
            relative_cost: plan.relative_cost(),
        }
    }

    /// The document as JSON text.
    ///
    /// # Errors
    /// Never: all keys are text and all values are plain.
    pub fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string_pretty(self).map_err(|error| {
            Failure::failed(error.to_string(), "this is a bug in patchtui: please report it")
        })
    }
}

impl Speed {
    fn new(measured: &Measured) -> Self {
        let times = |speed: &StageSpeed| {
            let StageSpeed { median, slowest, fastest, repetitions, is_stable } = *speed;
            StageTimes { median, slowest, fastest, repetitions, is_stable }
        };
        Self {
            scaled_from: measured.scaled_from.clone(),
            stages: measured.speeds.iter().map(times).collect(),
        }
    }
}

impl Planned {
    fn new(config: &RunConfig, plan: &RunPlan) -> Self {
        let need = MemoryNeed::new(plan, config);
        let model = &plan.model;
        Self {
            model: Model {
                vocab_size: model.vocab_size,
                hidden_size: model.hidden_size,
                intermediate_size: model.intermediate_size,
                num_hidden_layers: model.num_hidden_layers,
                num_attention_heads: model.num_attention_heads,
                num_key_value_heads: model.num_key_value_heads,
                max_position_embeddings: model.max_position_embeddings,
                tie_word_embeddings: model.tie_word_embeddings,
            },
            num_parameters: plan.num_parameters,
            stages: plan.stages.iter().map(stage).collect(),
            steps: plan.steps,
            cost: plan.cost.into(),
            token_level_flops: plan.token_level_flops,
            block_tokens: plan.block_tokens,
            entropy_rate: plan.entropy_rate,
            cadences: (&plan.cadences).into(),
            memory: Bytes {
                of_run: (&plan.memory).into(),
                cpu_least: need.least,
                cpu_expected: need.expected,
            },
            tokens_per_parameter: plan.tokens_per_parameter(),
            train_tokens: plan.train_tokens,
            epochs: plan.epochs(),
            warnings: plan.warnings.clone(),
            notes: plan.notes.clone(),
        }
    }
}

fn stage(stage: &StagePlan) -> Stage {
    Stage {
        patch_size: stage.patch_size.get(),
        first_step: stage.first_step,
        steps: stage.steps,
        first_token: stage.first_token,
        context_length: stage.context_length,
        tokens_per_step: stage.tokens_per_step,
        sequences_per_step: stage.sequences_per_step(),
        micro_batch_size: stage.micro_batch_size,
        num_micro_batches: stage.num_micro_batches,
        schedule: Rates {
            kind: stage.schedule.kind,
            peak: stage.schedule.peak,
            minimum: stage.schedule.minimum,
            warmup_steps: stage.schedule.warmup_steps,
            decay_steps: stage.schedule.decay_steps,
        },
        optimizer_state: stage.optimizer_state,
        cost: stage.cost(stage.steps).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::plan::{Corpus, DeviceKind};

    #[test]
    fn the_document_keeps_its_shape() {
        let sets = ["threads=2".to_owned(), "training.steps=9".to_owned()];
        let config =
            load(&LoadRequest { source: "demo", sets: &sets, current_dir: Path::new("/") })
                .unwrap()
                .config;
        let corpus =
            Corpus { tokenizer_vocab_size: 1024, train_tokens: None, entropy_rate: Some(1.25) };
        let plan = RunPlan::new(&config, &corpus, DeviceKind::Cpu).unwrap();
        let speed = |median: f64| StageSpeed {
            median,
            slowest: median / 2.0,
            fastest: 2.0 * median,
            repetitions: 4,
            is_stable: true,
        };
        let measured = Measured { speeds: vec![speed(1000.0), speed(250.0)], scaled_from: None };
        insta::assert_snapshot!(PlanDocument::new(&config, &plan, &measured).to_json().unwrap());
    }
}
