//! Two frameworks side by side, as JSON.

use serde::Serialize;

use crate::bench::document::{CpuDocument, StageDocument, TrainDocument};
use crate::bench::median;
use crate::bench::reference::{ReferenceReport, Versions};

/// Versions and execution modes of both frameworks.
#[derive(Debug, Serialize)]
pub(super) struct Contest {
    /// Version of this format.
    pub format_version: u32,
    /// `against` or `check`.
    pub bench: &'static str,
    /// Version of patchtui.
    pub patchtui: String,
    /// Name of the configuration.
    pub config: String,
    pub pytorch: Versions,
    /// `eager`, `compile` or `bf16`; patchtui computes as its configuration says.
    pub mode: &'static str,
    /// Device that patchtui uses.
    pub device: String,
    /// CPU threads of each framework.
    pub threads: usize,
    pub cpu: CpuDocument,
    /// Parameters; both frameworks must agree.
    pub num_parameters: u64,
    pub warmup_steps: usize,
    pub measured_steps: usize,
}

/// Times of both frameworks.
#[derive(Debug, Serialize)]
pub(super) struct RaceDocument {
    #[serde(flatten)]
    pub contest: Contest,
    pub stages: Vec<RaceStage>,
}

#[derive(Debug, Serialize)]
pub(super) struct RaceStage {
    /// Counted from 1.
    pub stage: usize,
    /// Tokens per patch (K).
    pub patch_size: usize,
    /// Positions per sequence.
    pub context_length: usize,
    pub tokens_per_step: u64,
    pub micro_batch_size: usize,
    pub num_micro_batches: usize,
    /// Floating-point operations of a step; both frameworks must agree.
    pub flops_per_step: f64,
    pub rounds: Vec<Round>,
    /// Median of the rounds' ratios.
    pub median_ratio: f64,
    /// Peak memory of patchtui divided by that of `PyTorch`; for each the maximum over the rounds.
    pub memory_ratio: Option<f64>,
}

/// One round of both frameworks.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    pub patchtui: Turn,
    pub pytorch: Turn,
    /// Tokens per second of patchtui divided by those of `PyTorch`.
    pub ratio: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Turn {
    /// Median step.
    pub step_seconds: f64,
    pub forward_seconds: f64,
    /// Includes the gradient of the head, which patchtui computes together with the loss.
    pub backward_seconds: f64,
    pub optimizer_seconds: f64,
    pub tokens_per_second: f64,
    /// Peak memory of the whole process.
    pub peak_memory_bytes: Option<u64>,
    /// Loss of the first step, before its update.
    pub first_loss: f64,
}

/// Losses of both frameworks, from the same weights and tokens.
#[derive(Debug, Serialize)]
pub(super) struct CheckDocument {
    #[serde(flatten)]
    pub contest: Contest,
    pub stages: Vec<CheckStage>,
    /// Largest difference of all losses, in nats.
    pub largest_difference: f64,
    /// Null in bf16, where losses are shown and not compared.
    pub tolerance: Option<f64>,
    /// Whether all differences are within the tolerance.
    pub is_within: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(super) struct CheckStage {
    /// Counted from 1.
    pub stage: usize,
    /// Tokens per patch (K).
    pub patch_size: usize,
    /// Losses of patchtui before the update of each step.
    pub patchtui_losses: Vec<f64>,
    pub pytorch_losses: Vec<f64>,
    /// Losses of `PyTorch`, in nats.
    pub largest_difference: f64,
}

impl Round {
    pub(super) fn new(ours: &TrainDocument, theirs: &ReferenceReport) -> Self {
        let (stage, reference) = (&ours.stages[0], &theirs.stages[0]);
        let parts = &stage.parts;
        let patchtui = Turn {
            step_seconds: stage.step_seconds,
            forward_seconds: parts.forward_seconds,
            backward_seconds: parts.head_seconds + parts.backward_seconds,
            optimizer_seconds: parts.optimizer_seconds,
            tokens_per_second: stage.tokens_per_second,
            peak_memory_bytes: stage.peak_memory_bytes,
            first_loss: stage.losses.first().copied().unwrap_or(0.0),
        };
        let step_seconds = median(reference.step_seconds.iter().copied());
        let pytorch = Turn {
            step_seconds,
            forward_seconds: reference.forward_seconds,
            backward_seconds: reference.backward_seconds,
            optimizer_seconds: reference.optimizer_seconds,
            tokens_per_second: stage.tokens_per_step as f64 / step_seconds,
            peak_memory_bytes: theirs.peak_memory_bytes,
            first_loss: reference.losses.first().copied().unwrap_or(0.0),
        };
        Self { ratio: patchtui.tokens_per_second / pytorch.tokens_per_second, patchtui, pytorch }
    }
}

impl RaceStage {
    pub(super) fn new(stage: &StageDocument, rounds: Vec<Round>) -> Self {
        let greatest = |of: fn(&Round) -> Option<u64>| rounds.iter().filter_map(of).max();
        let [ours, theirs] = [
            greatest(|round| round.patchtui.peak_memory_bytes),
            greatest(|round| round.pytorch.peak_memory_bytes),
        ];
        Self {
            stage: stage.stage,
            patch_size: stage.patch_size,
            context_length: stage.context_length,
            tokens_per_step: stage.tokens_per_step,
            micro_batch_size: stage.micro_batch_size,
            num_micro_batches: stage.num_micro_batches,
            flops_per_step: stage.flops_per_step,
            median_ratio: median(rounds.iter().map(|round| round.ratio)),
            memory_ratio: ours.zip(theirs).map(|(ours, theirs)| ours as f64 / theirs as f64),
            rounds,
        }
    }
}

impl CheckStage {
    pub(super) fn new(ours: &StageDocument, theirs: &[f64]) -> Self {
        let differences =
            ours.losses.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs());
        Self {
            stage: ours.stage,
            patch_size: ours.patch_size,
            largest_difference: differences.fold(0.0, f64::max),
            patchtui_losses: ours.losses.clone(),
            pytorch_losses: theirs.to_vec(),
        }
    }
}
