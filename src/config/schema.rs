//! The resolved configuration: one struct per TOML table, one field per key.
//!
//! Plain data. Help text and default of each key are in [`crate::config::KEYS`], also those for
//! runs of versions that did not have the key; `load.rs` merges the layers into a [`RunConfig`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Cadence, Count, DeviceChoice, PatchSize, Share, TokenLimit, WallTime};

/// Everything that determines a run, after defaults, presets, files and `--set` are merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run and of its directory.
    pub name: String,
    /// Seed of the initial weights and of the data order.
    pub seed: u64,
    /// Device of the tensors.
    pub device: DeviceChoice,
    /// CPU threads; 0 means all.
    pub threads: usize,
    /// Sizes of the network.
    pub model: ModelConfig,
    /// Text and tokenizer.
    pub data: DataConfig,
    /// Budget and batch.
    pub training: TrainingConfig,
    /// The stages in order: patch stages first, the token stage (K = 1) last.
    pub stages: Vec<StageConfig>,
    /// Hyperparameters of `AdamW`.
    pub optimizer: OptimizerConfig,
    /// Learning rate over a stage.
    pub schedule: ScheduleConfig,
    /// Reporting of metrics.
    pub report: ReportConfig,
    /// Evaluation of the token loss (K = 1).
    pub evaluation: EvaluationConfig,
    /// Neuron activation rates.
    pub activations: ActivationsConfig,
    /// Generated text.
    pub samples: SamplesConfig,
    /// Evaluation tasks during training.
    pub tasks: TasksConfig,
    /// Checkpoints.
    pub checkpoint: CheckpointConfig,
}

/// A LLaMA-style network; the names are those of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Preset that supplies the sizes that are not set explicitly.
    pub preset: String,
    /// Directory of the initial weights, absolute; absent: random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Vocabulary size; absent: that of the tokenizer, rounded up to a multiple of 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Hidden size: width of the residual stream.
    pub hidden_size: usize,
    /// Intermediate size of the FFN.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads per layer.
    pub num_attention_heads: usize,
    /// Key and value heads per layer; divides the number of query heads.
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

/// Text and its tokenization. Exactly one of `files` and `generator` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, folders and glob patterns, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<PathBuf>>,
    /// Generator of synthetic text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator: Option<TextGenerator>,
    /// Share of the text held out for evaluation. Exactly one of this and `validation_files` is
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_share: Option<Share>,
    /// Text held out for evaluation, absolute paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_files: Option<Vec<PathBuf>>,
    /// `"bytes"`, `"demo"`, or the absolute path of a tokenizer.json.
    pub tokenizer: String,
    /// Field of a JSON record that holds the text.
    pub text_field: String,
    /// Put a BOS token before each document.
    pub add_bos: bool,
    /// Put an EOS token after each document.
    pub add_eos: bool,
    /// Documents with more words are tokenized in parts; the ids are those of the whole document.
    pub max_document_words: Count,
    /// Maximum share of unusable records, which are skipped and reported. Above it preparation
    /// fails; 0 allows none.
    pub max_bad_records: f64,
    /// Maximum share of text that the tokenizer loses; above it preparation fails.
    pub max_lost_text: f64,
    /// Whether blocks are read in random order.
    pub shuffle: bool,
    /// Tokens per block of the data order; absent: the smallest number that is a whole number of
    /// sequences in every stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_tokens: Option<Count>,
}

/// Generator of synthetic text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextGenerator {
    /// English-like stories from a seeded grammar with a known entropy rate.
    Grammar,
}

/// Source of the training text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TextSource<'a> {
    /// Files, folders and patterns.
    Files(&'a [PathBuf]),
    /// Generated text.
    Generated(TextGenerator),
}

/// Source of the validation text.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Count>,
    /// Budget in positions (patches in a patch stage).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Count>,
    /// Budget in passes over the training text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Budget in optimizer steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Count>,
    /// Tokens per optimizer step, the same in every stage.
    pub tokens_per_step: Count,
    /// Positions per sequence.
    pub context_length: usize,
    /// Maximum number of sequences per forward pass.
    pub micro_batch_size: usize,
    /// Whether layers recompute their activations in the backward pass instead of keeping them.
    pub recompute: bool,
    /// Number format of matrix products.
    pub precision: Precision,
    /// The run stops with a checkpoint before this much time has passed since it started or
    /// resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_walltime: Option<WallTime>,
    /// Checkpoint that the run continues from: weights, optimizer state and position. Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork_from: Option<PathBuf>,
    /// Steps between audits, which compute a micro-batch twice and compare the results; 0: no
    /// audits.
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

/// Number format of matrix products; weights and optimizer state are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16 products on GPUs that support them; sums, norms, logits and losses stay f32.
    Bf16,
}

/// A part of the training with one patch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Tokens per patch (K).
    pub patch_size: PatchSize,
    /// Share of the run's tokens (lambda); at most one stage has none and takes the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// Optimizer state at the start of the stage.
    pub optimizer_state: OptimizerState,
    /// Overrides `training.context_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<usize>,
    /// Overrides `optimizer.learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Overrides the warm-up of the schedule, in steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Overrides `training.tokens_per_step`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_step: Option<Count>,
    /// Overrides `training.micro_batch_size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch_size: Option<usize>,
}

/// Optimizer state at the start of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerState {
    /// Reset moments and step count, as in the paper.
    Reset,
    /// Keep moments and step count.
    Keep,
}

/// Hyperparameters of `AdamW`; weight decay applies to embeddings, not to norms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate, reached at the end of the warm-up.
    pub learning_rate: f64,
    /// Betas of `AdamW`.
    pub betas: [f64; 2],
    /// Epsilon of `AdamW`.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Maximum global gradient norm (L2).
    pub gradient_clip: f64,
}

/// Learning rate schedule, restarted in every stage. Exactly one of the two warm-up keys is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Schedule after the warm-up.
    pub kind: ScheduleKind,
    /// Warm-up as a share of the stage's steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_share: Option<Share>,
    /// Warm-up in steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Share of a `wsd` stage, at its end, over which the learning rate decays.
    pub decay_share: Share,
    /// Learning rate at the end of a stage.
    pub min_learning_rate: f64,
}

/// Schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Half a cosine down to the minimum.
    Cosine,
    /// Linear down to the minimum.
    Linear,
    /// Constant at the peak.
    Constant,
    /// Constant, then linear decay over the last `decay_share`.
    Wsd,
}

/// Reporting interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// `auto`: every step on the CPU, every tenth on a GPU.
    pub every_steps: Cadence,
}

/// Evaluation of the token loss (K = 1) on the validation text, in every stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Interval; also done at stage ends.
    pub every_steps: Cadence,
    /// Maximum number of validation tokens per evaluation.
    pub max_tokens: TokenLimit,
}

/// Share of active neurons per layer, on a fixed probe batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationsConfig {
    /// Interval; also done at stage ends.
    pub every_steps: Cadence,
    /// A neuron counts as active when its absolute value is greater than this.
    pub threshold: f64,
    /// Tensor to measure.
    pub tensor: ActivationTensor,
}

/// Tensor that the activation probe measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationTensor {
    /// Output of the FFN before the residual addition, `hidden_size` wide (our reading of the
    /// paper).
    FfnOutput,
    /// Product of gate and up projection, `intermediate_size` wide.
    Intermediate,
}

/// Samples generated greedily from fixed prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplesConfig {
    /// Interval; also done at stage ends.
    pub every_steps: Cadence,
    /// Prompts; empty: the beginning of the validation text.
    pub prompts: Vec<String>,
    /// Maximum number of new tokens per prompt.
    pub max_new_tokens: usize,
}

/// Evaluation tasks during training, scored as by `patchtui eval`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksConfig {
    /// Interval; also done at stage ends.
    pub every_steps: Cadence,
    /// Names of tasks; empty: none.
    pub names: Vec<String>,
    /// Folder of the task files, absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Number of documents per task, starting with the first.
    pub limit: usize,
}

/// Checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Interval; also saved at stage ends.
    pub every_steps: Cadence,
    /// Number of periodic checkpoints to keep, at least 2; those of stage ends are always kept.
    pub keep: usize,
    /// Whether the checkpoint with the lowest token loss is kept as well.
    pub keep_best: bool,
    /// What SIGUSR1 does after saving a checkpoint.
    pub on_usr1: OnUsr1,
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
    /// Context length, in tokens, of a model that has reached stage `reached` (counted from 0).
    ///
    /// A patch stage does not train on token contexts: until it is over, the context length of the
    /// last K = 1 stage counts.
    #[must_use]
    pub fn token_context_length(&self, reached: usize) -> usize {
        let is_of_tokens = |stage: &&StageConfig| stage.patch_size == PatchSize::ONE;
        let own = self.stages.get(reached).filter(is_of_tokens);
        let stage =
            own.or_else(|| self.stages.iter().rev().find(is_of_tokens)).or(self.stages.last());
        stage.and_then(|stage| stage.context_length).unwrap_or(self.training.context_length)
    }
}

impl DataConfig {
    /// Source of the training text.
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

    /// Source of the validation text.
    ///
    /// # Panics
    /// If neither key is set, which loading a configuration rules out.
    #[must_use]
    pub fn validation(&self) -> ValidationSource<'_> {
        match (&self.validation_files, self.validation_share) {
            (Some(files), _) => ValidationSource::Files(files),
            (None, Some(share)) => ValidationSource::Share(share),
            (None, None) => unreachable!(
                "a loaded configuration has data.validation_share or data.validation_files"
            ),
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
