//! What a resolved configuration holds: one struct per TOML table, one field per key.
//!
//! Plain data without behaviour beyond reading alternatives. The text of each key, its default and its help are in
//! [`crate::config::KEYS`]; how layers become a [`RunConfig`] is in `load.rs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Cadence, Count, DeviceChoice, PatchSize, Share, TokenLimit, WallTime};

/// Everything that determines a run, after defaults, presets, files and `--set` are merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run and of its directory.
    pub name: String,
    /// Determines initial weights and data order.
    pub seed: u64,
    /// Where the tensors live.
    pub device: DeviceChoice,
    /// CPU threads; 0 means all.
    pub threads: usize,
    /// Sizes of the network.
    pub model: ModelConfig,
    /// Text and tokenizer.
    pub data: DataConfig,
    /// Budget and batch.
    pub training: TrainingConfig,
    /// The stages in order: patches first, single tokens after.
    pub stages: Vec<StageConfig>,
    /// Hyperparameters of `AdamW`.
    pub optimizer: OptimizerConfig,
    /// Learning rate over a stage.
    pub schedule: ScheduleConfig,
    /// Reporting of steps.
    pub report: ReportConfig,
    /// Token-level (K = 1) evaluation.
    pub evaluation: EvaluationConfig,
    /// Neuron activation rates.
    pub activations: ActivationsConfig,
    /// Generated text.
    pub samples: SamplesConfig,
    /// Evaluation tasks during training.
    #[serde(default)]
    pub tasks: TasksConfig,
    /// Saving and keeping.
    pub checkpoint: CheckpointConfig,
}

/// A LLaMA-style network; the names are those of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Preset that supplied the sizes not given explicitly.
    pub preset: String,
    /// Directory of the weights that the run starts from, absolute; absent: random ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Rows of the embedding table; absent: the tokenizer's, rounded up to a multiple of 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads per layer.
    pub num_attention_heads: usize,
    /// Key and value heads per layer; divides the query heads.
    pub num_key_value_heads: usize,
    /// Longest sequence in positions.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in `RMSNorm`.
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Whether the head shares the embedding table.
    pub tie_word_embeddings: bool,
}

/// Text, and how it becomes tokens. Exactly one of `files` and `generator` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, folders and glob patterns, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<PathBuf>>,
    /// Generator of synthetic text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<TextGenerator>,
    /// Share of the text held out for evaluation. Exactly one of this and `validation_files` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_share: Option<Share>,
    /// Text held out for evaluation, absolute paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_files: Option<Vec<PathBuf>>,
    /// `"bytes"`, `"demo"`, or the absolute path of a tokenizer.json.
    pub tokenizer: String,
    /// Field of a JSON record that holds the text.
    pub text_field: String,
    /// Put a begin-of-text token before each document.
    pub add_bos: bool,
    /// Put an end-of-text token after each document.
    pub add_eos: bool,
    /// Longer documents are tokenized in parts; the ids are those of the whole document.
    pub max_document_words: Count,
    /// Largest share of broken records; they are skipped and reported. Above it preparation fails; 0 allows none.
    pub max_bad_records: f64,
    /// Largest share of text that the tokenizer loses; above it preparation fails.
    #[serde(default = "default_max_lost_text")]
    pub max_lost_text: f64,
    /// Whether blocks are read in a random order.
    pub shuffle: bool,
    /// Tokens of a block of the data order; absent: the smallest that all stages can cut up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<Count>,
}

/// Runs of older versions did not say it.
fn default_max_lost_text() -> f64 {
    0.05
}

/// Generator of synthetic text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextGenerator {
    /// English-like stories from a seeded grammar with a known entropy rate.
    Grammar,
}

/// Where the text comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TextSource<'a> {
    /// Files, folders and patterns.
    Files(&'a [PathBuf]),
    /// Generated by the program.
    Generated(TextGenerator),
}

/// Where the validation text comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValidationSource<'a> {
    /// The tail of the token stream.
    Share(Share),
    /// Separate files.
    Files(&'a [PathBuf]),
}

/// Budget, batch and sequence sizes. Exactly one of the first four is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Budget in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Count>,
    /// Budget in positions (patches in a patch stage).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Count>,
    /// Budget in passes over the training text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Budget in optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Count>,
    /// Tokens per optimizer step, the same in every stage.
    pub tokens_per_step: Count,
    /// Positions per sequence.
    pub context_length: usize,
    /// Sequences per forward pass, at most.
    pub micro_batch_size: usize,
    /// Whether layers compute their activations again in the backward pass instead of keeping them.
    #[serde(default)]
    pub recompute: bool,
    /// Number format of the computation.
    pub precision: Precision,
    /// The run stops with a checkpoint before this much time has passed since it started or resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_walltime: Option<WallTime>,
    /// Checkpoint that the run continues from: weights, optimizer state and position. Absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_from: Option<PathBuf>,
    /// Steps between two audits, which compute a micro-batch twice and compare the results; 0: none.
    #[serde(default)]
    pub audit_every: u64,
}

/// The one budget that is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Tokens.
    Tokens(u64),
    /// Positions.
    Positions(u64),
    /// Passes over the training text.
    Epochs(f64),
    /// Optimizer steps.
    Steps(u64),
}

/// Number format of the computation; weights and moments are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    F32,
    /// Products of 16-bit numbers with 8-bit mantissas, on GPUs that have them; sums, norms, logits and losses stay f32.
    Bf16,
}

/// A stretch of training with one patch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Share of the run's tokens (lambda); at most one stage has none and takes the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What happens to the moments and to Adam's count on entering the stage.
    #[serde(default)]
    pub optimizer_state: OptimizerState,
    /// Overrides `training.context_length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<usize>,
    /// Overrides `optimizer.learning_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Overrides the schedule's warm-up, in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Overrides `training.tokens_per_step`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_step: Option<Count>,
    /// Overrides `training.micro_batch_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<usize>,
}

/// What happens to the moments and to Adam's count on entering a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerState {
    /// They start at zero, as in the paper.
    #[default]
    Reset,
    /// They are carried over.
    Keep,
}

/// Hyperparameters of `AdamW`; weight decay applies to embeddings, not to norms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest global gradient norm (L2).
    pub gradient_clip: f64,
}

/// Learning rate over a stage; restarted in every stage. Exactly one of the warm-ups is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Warm-up as a share of the stage's steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_share: Option<Share>,
    /// Warm-up in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Share of a `wsd` stage, at its end, over which the rate decays.
    pub decay_share: Share,
    /// Learning rate at the end of a stage.
    pub min_learning_rate: f64,
}

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine down to the minimum.
    Cosine,
    /// A straight line down to the minimum.
    Linear,
    /// Constant at the peak.
    Constant,
    /// Constant, then a straight line over the last `decay_share`.
    Wsd,
}

/// How often a step is reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// `auto`: every step on the CPU, every tenth on a GPU.
    pub every_steps: Cadence,
}

/// Token-level (K = 1) loss on the validation text, in every stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// How often; stage ends are always included.
    pub every_steps: Cadence,
    /// Validation tokens that are read each time, at most.
    pub max_tokens: TokenLimit,
}

/// Share of strongly activated neurons per layer, on a fixed probe batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationsConfig {
    /// How often; stage ends are always included.
    pub every_steps: Cadence,
    /// A neuron counts as activated when its absolute value is greater than this.
    pub threshold: f64,
    /// Which tensor is measured.
    pub tensor: ActivationTensor,
}

/// Tensor that the activation probe measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationTensor {
    /// Output of the feed-forward block before the residual addition, `hidden_size` wide (our reading of the paper).
    FfnOutput,
    /// Product of gate and up projection, `intermediate_size` wide.
    Intermediate,
}

/// Greedy continuations of fixed prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesConfig {
    /// How often; stage ends are always included.
    pub every_steps: Cadence,
    /// Texts to continue; empty: the beginning of the validation text.
    pub prompts: Vec<String>,
    /// Tokens to add to each, at most.
    pub max_new_tokens: usize,
}

/// Evaluation tasks during training, as `patchtui eval` scores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksConfig {
    /// How often; stage ends are always included.
    pub every_steps: Cadence,
    /// Names of tasks; empty: none.
    pub names: Vec<String>,
    /// Folder of the task files, absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Only the first documents of each task.
    pub limit: usize,
}

impl Default for TasksConfig {
    /// None, as in runs of versions that knew none.
    fn default() -> Self {
        Self { every_steps: Cadence::Auto, names: Vec::new(), data: None, limit: 100 }
    }
}

/// Saving and keeping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// How often; stage ends are always included.
    pub every_steps: Cadence,
    /// Periodic checkpoints to keep, at least 2; those of stage ends are always kept.
    pub keep: usize,
    /// Whether the checkpoint with the lowest token-level loss is kept as well.
    #[serde(default = "keep_best")]
    pub keep_best: bool,
    /// What SIGUSR1 does after saving a checkpoint.
    pub on_usr1: OnUsr1,
}

/// Runs of versions that did not know the key keep their best checkpoint from now on.
fn keep_best() -> bool {
    true
}

/// What SIGUSR1 does after saving a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUsr1 {
    /// The run continues.
    Continue,
    /// The run stops early.
    Stop,
}

impl RunConfig {
    /// Tokens that a model which has reached stage `reached` (from 0) was trained to read at once.
    ///
    /// A stage of patches says nothing about tokens: until it is over, those of the last stage of single tokens count.
    #[must_use]
    pub fn token_context_length(&self, reached: usize) -> usize {
        let is_of_tokens = |stage: &&StageConfig| stage.patch_size == PatchSize::ONE;
        let own = self.stages.get(reached).filter(is_of_tokens);
        let stage = own.or_else(|| self.stages.iter().rev().find(is_of_tokens)).or(self.stages.last());
        stage.and_then(|stage| stage.context_length).unwrap_or(self.training.context_length)
    }
}

impl DataConfig {
    /// Where the text comes from.
    ///
    /// # Panics
    /// If neither key is set, which loading a configuration rules out.
    #[must_use]
    pub fn source(&self) -> TextSource<'_> {
        match (&self.files, self.generator) {
            (Some(files), _) => TextSource::Files(files),
            (None, Some(generator)) => TextSource::Generated(generator),
            (None, None) => unreachable!("a loaded configuration has data.files or data.generator"),
        }
    }

    /// Where the validation text comes from.
    ///
    /// # Panics
    /// If neither key is set, which loading a configuration rules out.
    #[must_use]
    pub fn validation(&self) -> ValidationSource<'_> {
        match (&self.validation_files, self.validation_share) {
            (Some(files), _) => ValidationSource::Files(files),
            (None, Some(share)) => ValidationSource::Share(share),
            (None, None) => unreachable!("a loaded configuration has data.validation_share or data.validation_files"),
        }
    }
}

impl TrainingConfig {
    /// The one budget that is set.
    ///
    /// # Panics
    /// If none is set, which loading a configuration rules out.
    #[must_use]
    pub fn budget(&self) -> Budget {
        match (self.tokens, self.positions, self.epochs, self.steps) {
            (Some(tokens), ..) => Budget::Tokens(tokens.0),
            (_, Some(positions), ..) => Budget::Positions(positions.0),
            (_, _, Some(epochs), _) => Budget::Epochs(epochs),
            (.., Some(steps)) => Budget::Steps(steps.0),
            _ => unreachable!("a loaded configuration has one training budget"),
        }
    }
}
