//! The plan as published by a run: in its header, in `plan.json` and on the wire.
//!
//! Separate types from [`RunPlan`], so that the planner can change without affecting old runs and
//! attached clients. Fields are only ever added, each with a default; nothing is renamed or
//! removed.

use serde::{Deserialize, Serialize};

use crate::config::{OptimizerState, PatchSize, ScheduleKind};
use crate::plan::{
    Cadences, Cost, CostedStage, Memory, ModelShape, RunPlan, Schedule, Span, StagePlan,
    cost_after, stage_idx_after,
};

/// Content of `plan.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanFile {
    /// Version of the file; the first had none.
    #[serde(default)]
    pub format_version: u32,
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanOutline,
}

/// The plan of a run, as in its header.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanOutline {
    /// Sizes of the network.
    pub model: ModelOutline,
    /// Number of parameters.
    pub num_parameters: u64,
    /// The stages in order.
    pub stages: Vec<StageOutline>,
    /// Updates of the run.
    pub steps: u64,
    /// Cost of the run.
    pub cost: CostOutline,
    /// Floating-point operations of token-level training (K = 1) on the same tokens.
    pub token_level_flops: f64,
    /// Tokens of a block, the unit of the data order.
    pub block_tokens: u64,
    /// Tokens of the training text, if it was prepared.
    pub train_tokens: Option<u64>,
    /// True entropy rate of the text in nats per token, if it is known.
    pub entropy_rate: Option<f64>,
    /// Intervals between reports, evaluations, samples and checkpoints.
    pub cadences: CadenceOutline,
    /// Memory and disk space needed.
    pub memory: MemoryOutline,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Notes; older runs list them among the warnings.
    pub notes: Vec<String>,
}

/// The sizes of a network, by the names of Hugging Face's `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelOutline {
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Hidden size.
    pub hidden_size: usize,
    /// Intermediate size of the FFN.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads per layer.
    pub num_attention_heads: usize,
    /// Key and value heads per layer.
    pub num_key_value_heads: usize,
    /// Maximum sequence length, in positions.
    pub max_position_embeddings: usize,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// Epsilon of `RMSNorm`.
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the head shares the embedding table.
    pub tie_word_embeddings: bool,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageOutline {
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Updates of the run before this stage.
    pub first_step: u64,
    /// Updates of this stage.
    pub steps: u64,
    /// Tokens of the run before this stage.
    pub first_token: u64,
    /// Position of the stage in the data order, in tokens.
    #[serde(default)]
    pub first_data_token: u64,
    /// Tokens per update.
    pub tokens_per_step: u64,
    /// Positions per sequence.
    #[serde(default)]
    pub context_length: usize,
    /// Sequences per forward pass.
    #[serde(default)]
    pub micro_batch_size: usize,
    /// Forward passes per update.
    #[serde(default)]
    pub num_micro_batches: usize,
    /// Floating-point operations of one position, forward and backward.
    #[serde(default)]
    pub flops_per_position: f64,
    /// Learning rate schedule of the stage.
    #[serde(default)]
    pub schedule: ScheduleOutline,
    /// Optimizer state at the start of the stage.
    #[serde(default)]
    pub optimizer_state: MomentsOutline,
}

/// Learning rate schedule of a stage.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleOutline {
    /// Schedule after the warm-up, as in the configuration: `"cosine"`.
    pub kind: String,
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Learning rate at the end of the stage.
    pub minimum: f64,
    /// Updates with a rising rate.
    pub warmup_steps: u64,
    /// Updates with a falling rate at the end of a `wsd` stage.
    pub decay_steps: u64,
    /// Updates of the stage.
    pub steps: u64,
}

/// Optimizer state at the start of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MomentsOutline {
    /// Reset.
    Reset,
    /// Kept.
    Keep,
    /// A value of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Cost of a part of the training.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CostOutline {
    /// Tokens read.
    pub tokens: u64,
    /// Positions computed.
    pub positions: u64,
    /// Floating-point operations, forward and backward.
    pub flops: f64,
}

/// Intervals in optimizer steps; `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CadenceOutline {
    /// Metrics records.
    pub report: u64,
    /// Evaluations of the token loss.
    pub evaluation: Option<u64>,
    /// Activation measurements.
    pub activations: Option<u64>,
    /// Samples.
    pub samples: Option<u64>,
    /// Evaluation tasks.
    pub tasks: Option<u64>,
    /// Periodic checkpoints.
    pub checkpoint: Option<u64>,
}

/// Bytes that a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryOutline {
    /// Weights, gradients and optimizer state.
    pub state: u64,
    /// Activations.
    pub activations: u64,
    /// One checkpoint on disk.
    pub checkpoint: u64,
}

impl PlanOutline {
    /// The stage of the update that follows `completed` updates, or the last stage at the end.
    #[must_use]
    pub fn stage_idx_after(&self, completed: u64) -> usize {
        stage_idx_after(&self.stages, completed)
    }

    /// Cost of the first `completed` updates.
    #[must_use]
    pub fn cost_after(&self, completed: u64) -> Cost {
        cost_after(&self.stages, completed)
    }

    /// Cost of the run relative to token-level training on the same tokens.
    #[must_use]
    pub fn relative_cost(&self) -> f64 {
        self.cost.flops / self.token_level_flops
    }
}

impl CostedStage for StageOutline {
    fn span(&self) -> Span {
        let Self { patch_size, first_step, steps, tokens_per_step, flops_per_position, .. } = *self;
        Span { patch_size, first_step, steps, tokens_per_step, flops_per_position }
    }
}

impl From<&RunPlan> for PlanOutline {
    fn from(plan: &RunPlan) -> Self {
        Self {
            model: (&plan.model).into(),
            num_parameters: plan.num_parameters,
            stages: plan.stages.iter().map(StageOutline::from).collect(),
            steps: plan.steps,
            cost: plan.cost.into(),
            token_level_flops: plan.token_level_flops,
            block_tokens: plan.block_tokens,
            train_tokens: plan.train_tokens,
            entropy_rate: plan.entropy_rate,
            cadences: (&plan.cadences).into(),
            memory: (&plan.memory).into(),
            warnings: plan.warnings.clone(),
            notes: plan.notes.clone(),
        }
    }
}

impl From<&StagePlan> for StageOutline {
    fn from(stage: &StagePlan) -> Self {
        Self {
            patch_size: stage.patch_size,
            first_step: stage.first_step,
            steps: stage.steps,
            first_token: stage.first_token,
            first_data_token: stage.first_data_token,
            tokens_per_step: stage.tokens_per_step,
            context_length: stage.context_length,
            micro_batch_size: stage.micro_batch_size,
            num_micro_batches: stage.num_micro_batches,
            flops_per_position: stage.flops_per_position,
            schedule: (&stage.schedule).into(),
            optimizer_state: match stage.optimizer_state {
                OptimizerState::Reset => MomentsOutline::Reset,
                OptimizerState::Keep => MomentsOutline::Keep,
            },
        }
    }
}

impl From<&ModelShape> for ModelOutline {
    fn from(model: &ModelShape) -> Self {
        Self {
            vocab_size: model.vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            max_position_embeddings: model.max_position_embeddings,
            rope_theta: model.rope_theta,
            rms_norm_eps: model.rms_norm_eps,
            initializer_range: model.initializer_range,
            tie_word_embeddings: model.tie_word_embeddings,
        }
    }
}

impl From<&ModelOutline> for ModelShape {
    fn from(model: &ModelOutline) -> Self {
        Self {
            vocab_size: model.vocab_size,
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            max_position_embeddings: model.max_position_embeddings,
            rope_theta: model.rope_theta,
            rms_norm_eps: model.rms_norm_eps,
            initializer_range: model.initializer_range,
            tie_word_embeddings: model.tie_word_embeddings,
        }
    }
}

impl From<&Schedule> for ScheduleOutline {
    fn from(schedule: &Schedule) -> Self {
        let kind = match schedule.kind {
            ScheduleKind::Cosine => "cosine",
            ScheduleKind::Linear => "linear",
            ScheduleKind::Constant => "constant",
            ScheduleKind::Wsd => "wsd",
        };
        Self {
            kind: kind.into(),
            peak: schedule.peak,
            minimum: schedule.minimum,
            warmup_steps: schedule.warmup_steps,
            decay_steps: schedule.decay_steps,
            steps: schedule.steps,
        }
    }
}

impl From<&Cadences> for CadenceOutline {
    fn from(cadences: &Cadences) -> Self {
        let Cadences { report, evaluation, activations, samples, tasks, checkpoint } = *cadences;
        Self { report, evaluation, activations, samples, tasks, checkpoint }
    }
}

impl From<&Memory> for MemoryOutline {
    fn from(memory: &Memory) -> Self {
        let Memory { state, activations, checkpoint } = *memory;
        Self { state, activations, checkpoint }
    }
}

impl From<Cost> for CostOutline {
    fn from(cost: Cost) -> Self {
        Self { tokens: cost.tokens, positions: cost.positions, flops: cost.flops }
    }
}
