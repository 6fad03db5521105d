//! The JSON of `patchtui bench train --json`: a format of its own. Keys are only ever added. Start at [`TrainDocument`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::commands::bench::gpu::DataSheet;
use crate::commands::bench::median;
use crate::commands::bench::peak_memory::Peak;
use crate::engine::StageTimes;
use crate::plan::StagePlan;

/// Increased when a key changes its meaning or goes away.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainDocument {
    /// Version of this format.
    pub(super) format_version: u32,
    /// `train`.
    pub(super) bench: String,
    /// Version of the program.
    pub(super) patchtui: String,
    /// Name of the configuration.
    pub(super) config: String,
    /// Device that computes.
    pub(super) device: String,
    /// CPU threads that compute.
    pub(super) threads: usize,
    pub(super) cpu: CpuDocument,
    /// All weights, a tied table counted once.
    pub(super) num_parameters: u64,
    /// How often the stages took their turn.
    pub(super) rounds: usize,
    /// Steps of each stage before the measured ones, in each round.
    pub(super) warmup_steps: usize,
    /// Steps of each stage that were measured in each round.
    pub(super) measured_steps: usize,
    /// The fastest product of two square f32 matrices on the device, before and after the stages.
    pub(super) matmul_peak: MatmulDocument,
    /// Peaks of the GPU's data sheet; null for a CPU and for what is not in the program's table.
    pub(super) data_sheet: Option<DataSheetDocument>,
    /// One of each shape: of stages that compute alike only the first is measured.
    pub(super) stages: Vec<StageDocument>,
    pub(super) warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CpuDocument {
    /// Null where the system does not say.
    pub(super) model: Option<String>,
    /// Of the flags that decide about speed those that it has, as in `/proc/cpuinfo`.
    pub(super) flags: Vec<String>,
    /// Instructions that the kernels use.
    pub(super) kernels: String,
    /// Instructions that the matrix products use.
    pub(super) matmul: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MatmulDocument {
    /// Rows and columns.
    pub(super) size: usize,
    pub(super) flops_per_second: f64,
}

/// In floating-point operations per second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataSheetDocument {
    pub(super) gpu: String,
    pub(super) f32_flops_per_second: f64,
    pub(super) bf16_flops_per_second: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StageDocument {
    /// Counted from 1.
    pub(super) stage: usize,
    /// Tokens per patch (K).
    pub(super) patch_size: usize,
    /// Positions per sequence.
    pub(super) context_length: usize,
    pub(super) tokens_per_step: u64,
    /// Sequences per forward pass.
    pub(super) micro_batch_size: usize,
    pub(super) num_micro_batches: usize,
    /// Whether layers are computed again in the backward pass.
    pub(super) recompute: bool,
    /// The median step.
    pub(super) step_seconds: f64,
    /// Every measured step.
    pub(super) all_step_seconds: Vec<f64>,
    /// Parts of the median step, which add up to it: what they took in all measured steps, scaled.
    pub(super) parts: PartsDocument,
    pub(super) tokens_per_second: f64,
    /// Of the median step of each round.
    pub(super) round_tokens_per_second: Vec<f64>,
    pub(super) positions_per_second: f64,
    /// Operations of a step: 6 for each weight of a matrix product and position, and attention.
    pub(super) flops_per_step: f64,
    pub(super) flops_per_second: f64,
    /// `flops_per_second` against that of the matrix-product peak.
    pub(super) share_of_matmul_peak: f64,
    /// `flops_per_second` against the f32 peak of the data sheet.
    pub(super) mfu_f32: Option<f64>,
    /// `flops_per_second` against the bf16 peak of the data sheet.
    pub(super) mfu_bf16: Option<f64>,
    /// Null if it is not known.
    pub(super) peak_memory_bytes: Option<u64>,
    /// How the peak was got.
    pub(super) peak_memory_source: String,
    /// Tokens per second against those of the last measured stage with single tokens, the median of the rounds; null without
    /// such a stage.
    pub(super) speed_to_token_stage: Option<f64>,
    /// Loss of each step from the first on, in nats per scored token, before its update.
    pub(super) losses: Vec<f64>,
}

#[expect(clippy::struct_field_names, reason = "JSON has no types: the key says the unit")]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct PartsDocument {
    /// Reading ids and making a batch of them.
    pub(super) data_seconds: f64,
    /// Embedding, layers and last norm.
    pub(super) forward_seconds: f64,
    /// Logits, loss and their gradients, which are computed together.
    pub(super) head_seconds: f64,
    /// The way back; with recomputation, the layers' forward passes once more.
    pub(super) backward_seconds: f64,
    /// Norm of the gradients, clip and update.
    pub(super) optimizer_seconds: f64,
    /// All else.
    pub(super) other_seconds: f64,
}

/// What a stage is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peaks {
    /// Operations per second of matrix products.
    pub(super) matmul: f64,
    /// The GPU's data sheet, if it is known.
    pub(super) data_sheet: Option<DataSheet>,
}

impl StageDocument {
    /// Describes the stage `idx`, whose steps took `rounds`.
    pub(super) fn new(idx: usize, stage: &StagePlan, rounds: Vec<StageTimes>, memory: Peak, recompute: bool) -> Self {
        let cost = stage.cost(1);
        let speed = |round: &StageTimes| cost.tokens as f64 / median(round.steps.iter().map(Duration::as_secs_f64));
        let round_tokens_per_second = rounds.iter().map(speed).collect();
        let mut times = StageTimes::default();
        for round in rounds {
            times += round;
        }
        let all: Vec<f64> = times.steps.iter().map(Duration::as_secs_f64).collect();
        let step_seconds = median(all.iter().copied());
        Self {
            stage: idx + 1,
            patch_size: stage.patch_size.get(),
            context_length: stage.context_length,
            tokens_per_step: stage.tokens_per_step,
            micro_batch_size: stage.micro_batch_size,
            num_micro_batches: stage.num_micro_batches,
            recompute,
            step_seconds,
            parts: PartsDocument::new(&times, step_seconds),
            all_step_seconds: all,
            tokens_per_second: cost.tokens as f64 / step_seconds,
            round_tokens_per_second,
            positions_per_second: cost.positions as f64 / step_seconds,
            flops_per_step: cost.flops,
            flops_per_second: cost.flops / step_seconds,
            share_of_matmul_peak: 0.0,
            mfu_f32: None,
            mfu_bf16: None,
            peak_memory_bytes: memory.bytes,
            peak_memory_source: memory.source.to_owned(),
            speed_to_token_stage: None,
            losses: times.losses,
        }
    }

    /// The same, compared with `peaks`, and with the stage of single tokens, whose speed was `token_speeds` in the same rounds.
    pub(super) fn compared(self, peaks: Peaks, token_speeds: Option<&[f64]>) -> Self {
        let speeds = self.round_tokens_per_second.iter();
        Self {
            share_of_matmul_peak: self.flops_per_second / peaks.matmul,
            mfu_f32: peaks.data_sheet.map(|sheet| self.flops_per_second / sheet.f32),
            mfu_bf16: peaks.data_sheet.map(|sheet| self.flops_per_second / sheet.bf16),
            speed_to_token_stage: token_speeds.map(|token_speeds| median(speeds.zip(token_speeds).map(|(speed, token_speed)| speed / token_speed))),
            ..self
        }
    }
}

impl PartsDocument {
    fn new(times: &StageTimes, step_seconds: f64) -> Self {
        let scale = step_seconds / times.split.as_secs_f64();
        let scaled = |part: Duration| part.as_secs_f64() * scale;
        let parts = &times.parts;
        Self {
            data_seconds: scaled(parts.data),
            forward_seconds: scaled(parts.forward),
            head_seconds: scaled(parts.head),
            backward_seconds: scaled(parts.backward),
            optimizer_seconds: scaled(parts.optimizer),
            other_seconds: scaled(times.split.saturating_sub(parts.sum())),
        }
    }

    /// Name and seconds of each.
    pub(super) fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("data", self.data_seconds),
            ("forward", self.forward_seconds),
            ("head and loss", self.head_seconds),
            ("backward", self.backward_seconds),
            ("optimizer", self.optimizer_seconds),
            ("other", self.other_seconds),
        ]
    }
}
