//! From a configuration to a plan.

use std::collections::BTreeMap;

use crate::config::{Budget, Cadence, RunConfig, ScheduleKind, Share, StageConfig, TokenLimit};
use crate::plan::fit::fit;
use crate::plan::remarks::Remarks;
use crate::plan::stage::{CostedStage, cost_after, stage_idx_after};
use crate::plan::{Cadences, Cost, Memory, ModelShape, PlanError, Schedule, StagePlan};

/// Training tokens of a generator if the budget is counted in epochs and does not say how many are
/// read.
pub const GENERATED_TOKENS: u64 = 2_000_000;

/// What is known about the text before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corpus {
    /// Vocabulary size of the tokenizer, special tokens included.
    pub tokenizer_vocab_size: usize,
    /// Tokens of the training text, if it was prepared.
    pub train_tokens: Option<u64>,
    /// True entropy rate of the text in nats per token, if it is known.
    pub entropy_rate: Option<f64>,
}

/// What a run computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU, where reporting every step costs nothing.
    Cpu,
    /// A GPU, which reporting makes wait.
    Gpu,
}

impl DeviceKind {
    /// The CPU if `is_cpu`, else a GPU.
    #[must_use]
    pub fn of(is_cpu: bool) -> Self {
        if is_cpu { Self::Cpu } else { Self::Gpu }
    }
}

/// Everything that follows from a configuration by arithmetic.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// Sizes of the network.
    pub model: ModelShape,
    /// Number of parameters.
    pub num_parameters: u64,
    /// The stages in order.
    pub stages: Vec<StagePlan>,
    /// Optimizer steps of the run.
    pub steps: u64,
    /// Cost of the run.
    pub cost: Cost,
    /// Operations of token-level training (K = 1) on the same tokens, the denominator of the
    /// relative cost.
    pub token_level_flops: f64,
    /// Tokens of a block, the unit of the data order.
    pub block_tokens: u64,
    /// Tokens of the training text, if it was prepared.
    pub train_tokens: Option<u64>,
    /// True entropy rate of the text in nats per token, if it is known.
    pub entropy_rate: Option<f64>,
    /// How often reports, evaluations, samples and checkpoints are due.
    pub cadences: Cadences,
    /// Maximum number of validation tokens per evaluation.
    pub evaluation_tokens: u64,
    /// Peak memory.
    pub memory: Memory,
    /// Warnings: what the user should act on.
    pub warnings: Vec<String>,
    /// Notes.
    pub notes: Vec<String>,
}

impl RunPlan {
    /// Works out the plan of `config` for `corpus` on `device`.
    ///
    /// # Errors
    /// When the numbers do not fit together; the error's hint names values that do.
    pub fn new(config: &RunConfig, corpus: &Corpus, device: DeviceKind) -> Result<Self, PlanError> {
        let model = ModelShape::new(&config.model, vocab_size(config, corpus)?);
        let block_tokens = block_tokens(config)?;
        check_sequences(config)?;
        let mut remarks = Remarks::default();
        let stages = stages(config, corpus, &model, block_tokens, &mut remarks.warnings)?;
        remarks.on_stages(config, &stages);
        let steps = stages.last().map_or(0, StagePlan::last_step);
        let cost: Cost = stages.iter().map(|stage| stage.cost(stage.steps)).sum();
        let widest = |stage: &StagePlan| {
            model.memory(stage.micro_batch_size, stage.context_length, config.training.recompute)
        };
        let memory = stages
            .iter()
            .map(widest)
            .max_by_key(|m| m.activations)
            .unwrap_or_else(|| model.memory(0, 0, false));
        if let Some(train_tokens) = corpus.train_tokens {
            remarks.on_corpus(
                [train_tokens, usable_tokens(train_tokens, block_tokens), block_tokens],
                cost.tokens,
            )?;
        }
        let checkpoints = affordable_checkpoints(cost.flops, model.num_parameters(), device);
        let cadences = cadences(config, steps, checkpoints, device);
        remarks.on_cadences(config, &cadences);
        Ok(Self {
            num_parameters: model.num_parameters(),
            token_level_flops: cost.tokens as f64
                * model.flops_per_position(config.training.context_length),
            evaluation_tokens: evaluation_tokens(config, &cadences, cost.positions, steps),
            cadences,
            train_tokens: corpus.train_tokens,
            entropy_rate: corpus.entropy_rate,
            model,
            stages,
            steps,
            cost,
            block_tokens,
            memory,
            warnings: remarks.warnings,
            notes: remarks.notes,
        })
    }

    /// The stage of the update that follows `completed` updates, or the last stage at the end.
    #[must_use]
    pub fn stage_idx_after(&self, completed: u64) -> usize {
        stage_idx_after(&self.stages, completed)
    }

    /// For each stage, the first stage with micro-batches of the same shape: a measurement of that
    /// one holds for both.
    #[must_use]
    pub fn first_stages_alike(&self) -> Vec<usize> {
        let mut first = BTreeMap::new();
        let shape = |stage: &StagePlan| {
            (
                stage.patch_size,
                stage.context_length,
                stage.micro_batch_size,
                stage.num_micro_batches,
            )
        };
        self.stages
            .iter()
            .enumerate()
            .map(|(idx, stage)| *first.entry(shape(stage)).or_insert(idx))
            .collect()
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

    /// Training tokens per parameter.
    #[must_use]
    pub fn tokens_per_parameter(&self) -> f64 {
        self.cost.tokens as f64 / self.num_parameters as f64
    }

    /// Passes over the training text, if its length is known.
    #[must_use]
    pub fn epochs(&self) -> Option<f64> {
        self.train_tokens
            .map(|tokens| self.cost.tokens as f64 / usable_tokens(tokens, self.block_tokens) as f64)
    }
}

fn vocab_size(config: &RunConfig, corpus: &Corpus) -> Result<usize, PlanError> {
    let tokenizer = corpus.tokenizer_vocab_size;
    match config.model.vocab_size {
        // Multiples of 64 keep the matrix kernels of GPUs on their fast paths.
        None => Ok(tokenizer.checked_next_multiple_of(64).unwrap_or(tokenizer)),
        Some(vocab_size) if vocab_size >= tokenizer => Ok(vocab_size),
        Some(vocab_size) => Err(PlanError::VocabularyTooSmall { vocab_size, tokenizer }),
    }
}

fn context_length(config: &RunConfig, stage: &StageConfig) -> usize {
    stage.context_length.unwrap_or(config.training.context_length)
}

fn sequence_tokens(config: &RunConfig, stage: &StageConfig) -> u64 {
    (context_length(config, stage) * stage.patch_size.get()) as u64
}

fn tokens_per_step(config: &RunConfig, stage: &StageConfig) -> u64 {
    stage.tokens_per_step.unwrap_or(config.training.tokens_per_step).0
}

/// The smallest number of tokens that is a whole number of sequences in every stage.
fn common_sequence_tokens(config: &RunConfig) -> Result<u64, PlanError> {
    let common = config.stages.iter().map(|stage| sequence_tokens(config, stage)).try_fold(1, lcm);
    common.ok_or(PlanError::BlockTooLarge)
}

/// Tokens of a block of the data order, which depends on the stages alone.
///
/// # Errors
/// When the configured block is not a whole number of sequences.
pub fn block_tokens(config: &RunConfig) -> Result<u64, PlanError> {
    let common = common_sequence_tokens(config)?;
    match config.data.block_tokens {
        None => Ok(common),
        Some(pinned) if pinned.0 > 0 && pinned.0.is_multiple_of(common) => Ok(pinned.0),
        Some(pinned) => Err(PlanError::UnevenBlock { block_tokens: pinned.0, common }),
    }
}

fn check_sequences(config: &RunConfig) -> Result<(), PlanError> {
    let common = common_sequence_tokens(config)?;
    for (idx, stage) in config.stages.iter().enumerate() {
        let context_length = context_length(config, stage);
        let limit = config.model.max_position_embeddings;
        if context_length > limit {
            return Err(PlanError::ContextTooLong { stage: idx + 1, context_length, limit });
        }
        let (tokens_per_step, sequence) =
            (tokens_per_step(config, stage), sequence_tokens(config, stage));
        if tokens_per_step == 0 || !tokens_per_step.is_multiple_of(sequence) {
            let patch_size = stage.patch_size.get();
            return Err(PlanError::UnevenStep {
                tokens_per_step,
                stage: idx + 1,
                patch_size,
                context_length,
                sequence,
                common,
            });
        }
    }
    Ok(())
}

/// The share of each stage, with the rest filled in.
fn shares(config: &RunConfig) -> Result<Vec<f64>, PlanError> {
    let sum: f64 = config.stages.iter().filter_map(|stage| stage.share).map(Share::get).sum();
    let rests = config.stages.iter().filter(|stage| stage.share.is_none()).count();
    match rests {
        0 if (sum - 1.0).abs() > 1e-9 => Err(PlanError::Shares { sum, all_given: true }),
        1 if sum > 1.0 - 1e-9 => Err(PlanError::Shares { sum, all_given: false }),
        2.. => Err(PlanError::SeveralRests { count: rests }),
        _ => Ok(config
            .stages
            .iter()
            .map(|stage| stage.share.map_or(1.0 - sum, Share::get))
            .collect()),
    }
}

/// Updates of the run, counted with the run's own `tokens_per_step`.
fn run_steps(
    config: &RunConfig,
    corpus: &Corpus,
    shares: &[f64],
    block_tokens: u64,
) -> Result<u64, PlanError> {
    let per_step = config.training.tokens_per_step.0;
    let tokens = match config.training.budget() {
        Budget::Steps(steps) => steps.saturating_mul(per_step),
        Budget::Tokens(tokens) => tokens,
        Budget::Epochs(epochs) => {
            let usable =
                usable_tokens(corpus.train_tokens.ok_or(PlanError::CorpusUnknown)?, block_tokens);
            (epochs * usable as f64) as u64
        }
        Budget::Positions(positions) => {
            let per_token: f64 = config
                .stages
                .iter()
                .zip(shares)
                .map(|(stage, share)| share / stage.patch_size.get() as f64)
                .sum();
            (positions as f64 / per_token) as u64
        }
    };
    // Half of the range remains for sums and for rounding up.
    if i64::try_from(tokens).is_err() {
        return Err(PlanError::BudgetTooLarge);
    }
    Ok(tokens / per_step)
}

fn stages(
    config: &RunConfig,
    corpus: &Corpus,
    model: &ModelShape,
    block_tokens: u64,
    warnings: &mut Vec<String>,
) -> Result<Vec<StagePlan>, PlanError> {
    let shares = shares(config)?;
    let run_tokens_per_step = config.training.tokens_per_step.0;
    let total = run_steps(config, corpus, &shares, block_tokens)?;
    let given =
        |idx: usize| config.stages[idx].share.map(|_| (shares[idx] * total as f64).round() as u64);
    let taken: u64 = (0..config.stages.len()).filter_map(given).fold(0, u64::saturating_add);
    let all_given = config.stages.iter().all(|stage| stage.share.is_some());
    let mut divisors = BTreeMap::new();
    let mut plans: Vec<StagePlan> = Vec::with_capacity(config.stages.len());
    for (idx, stage) in config.stages.iter().enumerate() {
        let per_step = tokens_per_step(config, stage);
        // Rounding each share separately must not change the budget: without a stage for the rest,
        // the last stage takes it.
        let takes_the_rest = all_given && idx + 1 == config.stages.len();
        let run_units = match given(idx) {
            Some(own) if takes_the_rest => total.saturating_sub(taken - own),
            Some(own) => own,
            None => total.saturating_sub(taken),
        };
        let steps = if per_step == run_tokens_per_step {
            run_units
        } else {
            run_units * run_tokens_per_step / per_step
        };
        if steps == 0 {
            return Err(PlanError::EmptyStage {
                stage: idx + 1,
                steps: total,
                tokens_per_step: per_step,
            });
        }
        let before = plans.last();
        let sequences = (per_step / sequence_tokens(config, stage)) as usize;
        let limit = stage.micro_batch_size.unwrap_or(config.training.micro_batch_size);
        // Most stages are alike, and finding a divisor may take a million trials.
        let micro_batch_size = *divisors
            .entry((sequences, limit))
            .or_insert_with(|| largest_divisor(sequences, limit));
        let context_length = context_length(config, stage);
        let data_end =
            before.map_or(0, |plan| plan.first_data_token + plan.steps * plan.tokens_per_step);
        plans.push(StagePlan {
            idx,
            patch_size: stage.patch_size,
            first_step: before.map_or(0, StagePlan::last_step),
            steps,
            first_token: before
                .map_or(0, |plan| plan.first_token + plan.steps * plan.tokens_per_step),
            first_data_token: data_end.next_multiple_of(sequence_tokens(config, stage)),
            context_length,
            tokens_per_step: per_step,
            micro_batch_size,
            num_micro_batches: sequences / micro_batch_size,
            schedule: fit(&schedule(config, stage, steps), idx + 1, warnings),
            optimizer_state: stage.optimizer_state,
            flops_per_position: model.flops_per_position(context_length),
        });
    }
    Ok(plans)
}

fn schedule(config: &RunConfig, stage: &StageConfig, steps: u64) -> Schedule {
    let share = |share: f64| (share * steps as f64).round() as u64;
    let warmup_share = config.schedule.warmup_share.map_or(0.0, Share::get);
    Schedule {
        kind: config.schedule.kind,
        peak: stage.learning_rate.unwrap_or(config.optimizer.learning_rate),
        minimum: config.schedule.min_learning_rate,
        warmup_steps: stage
            .warmup_steps
            .or(config.schedule.warmup_steps)
            .unwrap_or_else(|| share(warmup_share)),
        decay_steps: if config.schedule.kind == ScheduleKind::Wsd {
            share(config.schedule.decay_share.get())
        } else {
            0
        },
        steps,
    }
}

fn cadences(
    config: &RunConfig,
    steps: u64,
    affordable_checkpoints: u64,
    device: DeviceKind,
) -> Cadences {
    let part = |cadence: Cadence, parts: u64| match cadence {
        Cadence::Auto => Some((steps / parts).max(1)),
        Cadence::Every(every) => Some(every.get()),
        Cadence::Never => None,
    };
    let evaluation = part(config.evaluation.every_steps, 20);
    let checkpoint = part(config.checkpoint.every_steps, affordable_checkpoints.clamp(1, 10));
    // The best checkpoint is found among those whose loss is measured.
    let is_free = config.checkpoint.keep_best && config.checkpoint.every_steps == Cadence::Auto;
    Cadences {
        report: match config.report.every_steps {
            Cadence::Every(every) => every.get(),
            Cadence::Auto | Cadence::Never => {
                if device == DeviceKind::Cpu {
                    1
                } else {
                    10
                }
            }
        },
        evaluation,
        activations: part(config.activations.every_steps, 20),
        samples: part(config.samples.every_steps, 10),
        tasks: if config.tasks.names.is_empty() { None } else { part(config.tasks.every_steps, 4) },
        checkpoint: match (checkpoint, evaluation) {
            (Some(every), Some(evaluation)) if is_free && evaluation <= every => {
                Some(every.next_multiple_of(evaluation))
            }
            _ => checkpoint,
        },
    }
}

/// How many checkpoints take about half a percent of a run's time. The speeds are guesses: a run is
/// planned before it is measured. A processor is taken for two cores with AVX-512, which reach 1e11
/// to 1.8e11 (docs/results/speed.md).
fn affordable_checkpoints(flops: f64, num_parameters: u64, device: DeviceKind) -> u64 {
    const SHARE: f64 = 0.005;
    /// Weights and optimizer state, in f32.
    const BYTES_PER_PARAMETER: f64 = 12.0;
    const BYTES_PER_SECOND: f64 = 400e6;
    /// Time for the disk to sync a file, even a small one.
    const LEAST_SECONDS: f64 = 0.05;
    let flops_per_second = if device == DeviceKind::Cpu { 1.5e11 } else { 1e14 };
    let of_checkpoint =
        LEAST_SECONDS + num_parameters as f64 * BYTES_PER_PARAMETER / BYTES_PER_SECOND;
    (flops / flops_per_second * SHARE / of_checkpoint) as u64
}

/// Tokens per evaluation; the default keeps all evaluations together at about 0.7 % of the run's
/// compute.
fn evaluation_tokens(config: &RunConfig, cadences: &Cadences, positions: u64, steps: u64) -> u64 {
    /// More tokens hardly reduce the standard error.
    const MOST: u64 = 256_000;
    /// Fewer sequences would make the loss too noisy.
    const LEAST_SEQUENCES: u64 = 8;
    /// A forward pass is a third of a training step's work on a position.
    const SHARE: f64 = 0.007 * 3.0;
    match config.evaluation.max_tokens {
        TokenLimit::AtMost(tokens) => tokens.0,
        TokenLimit::Auto => {
            let evaluations =
                cadences.evaluation.map_or(0, |every| steps / every) + config.stages.len() as u64;
            let context_length = config.training.context_length as u64;
            let affordable =
                (positions as f64 * SHARE / evaluations as f64) as u64 / context_length;
            (affordable.max(LEAST_SEQUENCES) * context_length).min(MOST.max(context_length))
        }
    }
}

fn usable_tokens(train_tokens: u64, block_tokens: u64) -> u64 {
    train_tokens / block_tokens * block_tokens
}

fn largest_divisor(number: usize, limit: usize) -> usize {
    (1..=number.min(limit.max(1)))
        .rev()
        .find(|divisor| number.is_multiple_of(*divisor))
        .unwrap_or(1)
}

/// Least common multiple, if it fits into TOML's 63 bits.
fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).checked_mul(b).filter(|common| i64::try_from(*common).is_ok())
}
