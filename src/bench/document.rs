//! The JSON of `patchtui bench train --json`, a separate format. Keys are only ever added. Start at
//! [`TrainDocument`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::gpu::DataSheet;
use crate::bench::median;
use crate::bench::peak_memory::Peak;
use crate::engine::StageTimes;
use crate::plan::{CostedStage, StagePlan};

/// Incremented when a key is removed or changes its meaning.
pub(super) const FORMAT_VERSION: u32 = 1;

/// The whole document.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TrainDocument {
    /// Version of this format.
    pub format_version: u32,
    /// `train`.
    pub bench: String,
    /// Version of patchtui.
    pub patchtui: String,
    /// Name of the configuration.
    pub config: String,
    /// Device used.
    pub device: String,
    /// CPU threads used.
    pub threads: usize,
    pub cpu: CpuDocument,
    /// Parameters; tied embeddings are counted once.
    pub num_parameters: u64,
    /// Number of rounds over the stages.
    pub rounds: usize,
    /// Warm-up steps per stage and round.
    pub warmup_steps: usize,
    /// Measured steps per stage and round.
    pub measured_steps: usize,
    /// Fastest product of two square f32 matrices on the device, measured before and after the
    /// stages.
    pub matmul_peak: MatmulDocument,
    /// Data-sheet peaks of the GPU; null for a CPU and for a GPU that the table does not list.
    pub data_sheet: Option<DataSheetDocument>,
    /// The measured stages: of stages with the same shape only the first is measured.
    pub stages: Vec<StageDocument>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CpuDocument {
    /// CPU model; null if the system does not report it.
    pub model: Option<String>,
    /// CPU features that matter for speed, as in `/proc/cpuinfo`.
    pub flags: Vec<String>,
    /// Instruction set of the kernels.
    pub kernels: String,
    /// Instruction set of the matrix products.
    pub matmul: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MatmulDocument {
    /// Rows and columns.
    pub size: usize,
    pub flops_per_second: f64,
}

/// Floating-point operations per second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DataSheetDocument {
    pub gpu: String,
    pub f32_flops_per_second: f64,
    pub bf16_flops_per_second: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StageDocument {
    /// Counted from 1.
    pub stage: usize,
    /// Tokens per patch (K).
    pub patch_size: usize,
    /// Positions per sequence.
    pub context_length: usize,
    pub tokens_per_step: u64,
    /// Sequences per forward pass.
    pub micro_batch_size: usize,
    pub num_micro_batches: usize,
    /// Whether activations are recomputed in the backward pass.
    pub recompute: bool,
    /// Median step.
    pub step_seconds: f64,
    /// Every measured step.
    pub all_step_seconds: Vec<f64>,
    /// Time per part of the median step; the parts add up to it. Averages over all measured steps,
    /// scaled.
    pub parts: PartsDocument,
    pub tokens_per_second: f64,
    /// Tokens per second of the median step of each round.
    pub round_tokens_per_second: Vec<f64>,
    pub positions_per_second: f64,
    /// Operations of a step: 6 per weight of a matrix product and position, plus attention.
    pub flops_per_step: f64,
    pub flops_per_second: f64,
    /// `flops_per_second` divided by the matrix-product peak.
    pub share_of_matmul_peak: f64,
    /// `flops_per_second` divided by the f32 peak of the data sheet.
    pub mfu_f32: Option<f64>,
    /// `flops_per_second` divided by the bf16 peak of the data sheet.
    pub mfu_bf16: Option<f64>,
    /// Peak memory; null if unknown.
    pub peak_memory_bytes: Option<u64>,
    /// How the peak memory was measured.
    pub peak_memory_source: String,
    /// Tokens per second relative to the last measured K = 1 stage, median over the rounds; null
    /// without such a stage.
    pub speed_to_token_stage: Option<f64>,
    /// Loss of each step, from the first, in nats per scored token, before its update.
    pub losses: Vec<f64>,
}

#[expect(clippy::struct_field_names, reason = "JSON has no types: the key says the unit")]
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct PartsDocument {
    /// Reading ids and building the batch.
    pub data_seconds: f64,
    /// Embedding, layers and final norm.
    pub forward_seconds: f64,
    /// Logits, loss and their gradients, which are computed together.
    pub head_seconds: f64,
    /// Backward pass; with recomputation it includes the second forward pass of the layers.
    pub backward_seconds: f64,
    /// Gradient norm, clipping and update.
    pub optimizer_seconds: f64,
    /// Everything else.
    pub other_seconds: f64,
}

/// What a stage is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peaks {
    /// Matrix-product peak, in operations per second.
    pub matmul: f64,
    /// Data sheet of the GPU, if known.
    pub data_sheet: Option<DataSheet>,
}

impl StageDocument {
    /// Describes the stage `idx`, whose steps took `rounds`.
    pub(super) fn new(
        idx: usize,
        stage: &StagePlan,
        rounds: Vec<StageTimes>,
        memory: Peak,
        recompute: bool,
    ) -> Self {
        let cost = stage.cost(1);
        let speed = |round: &StageTimes| {
            cost.tokens as f64 / median(round.steps.iter().map(Duration::as_secs_f64))
        };
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

    /// The same, relative to `peaks` and to the K = 1 stage, whose speed was `token_speeds` in the
    /// same rounds.
    pub(super) fn compared(self, peaks: Peaks, token_speeds: Option<&[f64]>) -> Self {
        let speeds = self.round_tokens_per_second.iter();
        Self {
            share_of_matmul_peak: self.flops_per_second / peaks.matmul,
            mfu_f32: peaks.data_sheet.map(|sheet| self.flops_per_second / sheet.f32),
            mfu_bf16: peaks.data_sheet.map(|sheet| self.flops_per_second / sheet.bf16),
            speed_to_token_stage: token_speeds.map(|token_speeds| {
                median(speeds.zip(token_speeds).map(|(speed, token_speed)| speed / token_speed))
            }),
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

    /// Name and seconds of each part.
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
