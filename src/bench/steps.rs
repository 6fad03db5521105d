//! Time per training step of each stage.
//!
//! Start at [`measure`]; its JSON is described in `document.rs`, its table is made in `lines.rs`.

use std::fs;
use std::num::NonZeroUsize;

use crate::advice::Failure;
use crate::bench::document::{
    CpuDocument, DataSheetDocument, FORMAT_VERSION, MatmulDocument, Peaks, StageDocument,
    TrainDocument,
};
use crate::bench::gpu::data_sheet;
use crate::bench::peak_memory::PeakMemory;
use crate::bench::scratch::ScratchFolder;
use crate::bench::use_threads;
use crate::cli::BenchTrainArgs;
use crate::config::{Count, RunConfig};
use crate::data::random_tokens;
use crate::engine::allocator::keep_freed_memory;
use crate::engine::device::ComputeDevice;
use crate::engine::instruction_set::{matmul_instructions, vector_instructions};
use crate::engine::matmul_peak::{MatmulPeak, measure_matmul_peak};
use crate::engine::tensor_file::write_tensors;
use crate::engine::{BenchSteps, EngineError, StepBench};
use crate::host::PlanInputs;
use crate::host::check_memory;
use crate::host::plan_before_preparation;
use crate::machine::memory::available_memory;
use crate::machine::processor::Processor;
use crate::plan::{DeviceKind, PlanError, RunPlan, StagePlan};
use crate::report::tell;
use crate::text::format::counted;

/// Number of steps of the plan, whose budget is not used: large enough that no stage is empty.
const PLANNED_STEPS: u64 = 1_000_000;
/// Default numbers of measured and of warm-up steps.
const MEASURED: usize = 10;
const WARMUP: usize = 3;
/// Steps whose losses are compared.
const CHECKED: usize = 4;
/// Files for the initial weights and tokens in the --keep-input folder.
pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
pub(super) const TOKENS_FILE: &str = "tokens";

/// What to measure.
#[derive(Debug)]
pub(super) struct Planned {
    pub config: RunConfig,
    pub plan: RunPlan,
    /// Stages to measure: the first of each shape, or the one of --stage.
    pub stages: Vec<usize>,
    pub steps: BenchSteps,
}

impl Planned {
    /// The steps of `config` that the command line asks for.
    ///
    /// # Errors
    /// When the configuration has no valid plan, or no such stage.
    pub(super) fn new(args: &BenchTrainArgs, config: RunConfig) -> Result<Self, Failure> {
        let (config, plan) = plan_steps(config)?;
        let stages = match args.stage.map(NonZeroUsize::get) {
            None => {
                let mut stages = plan.first_stages_alike();
                stages.sort_unstable();
                stages.dedup();
                stages
            }
            Some(stage) if stage <= plan.stages.len() => vec![stage - 1],
            Some(stage) => {
                let message = format!(
                    "there is no stage {stage}: {} has {}",
                    config.name,
                    counted(plan.stages.len(), "stage")
                );
                return Err(Failure::usage(
                    message,
                    format!("use --stage {} or less", plan.stages.len()),
                ));
            }
        };
        let (warmup, measured) = if args.check { (0, CHECKED) } else { (WARMUP, MEASURED) };
        let steps = BenchSteps {
            warmup: args.warmup.unwrap_or(warmup),
            measured: args.steps.map_or(measured, usize::from),
        };
        Ok(Self { config, plan, stages, steps })
    }
}

/// `config` and its plan, with a budget that leaves no stage empty; its files may be missing.
///
/// # Errors
/// When it has no valid plan.
pub(super) fn plan_steps(mut config: RunConfig) -> Result<(RunConfig, RunPlan), Failure> {
    let inputs = PlanInputs::find(&config)?;
    let training = &mut config.training;
    (training.tokens, training.positions, training.epochs) = (None, None, None);
    training.steps = Some(Count(PLANNED_STEPS));
    let mut plan = plan_before_preparation(&config, inputs.tokenizer.as_ref(), DeviceKind::Cpu)?
        .ok_or(PlanError::CorpusUnknown)?;
    plan.warnings = inputs.assumptions();
    Ok((config, plan))
}

/// Sets the memory and the number of threads of this process to those of a run; warns or fails if
/// memory is short.
///
/// # Errors
/// When the device lacks the number format, or the network cannot fit.
pub(super) fn prepare_device(
    device: &ComputeDevice,
    config: &RunConfig,
    plan: &mut RunPlan,
) -> Result<(), Failure> {
    keep_freed_memory();
    device.check_precision(config.training.precision)?;
    use_threads(config.threads)?;
    if let Some(available) = available_memory().filter(|_| device.is_cpu) {
        plan.warnings.extend(check_memory(config, plan, available)?);
    }
    Ok(())
}

/// Measures the planned steps.
///
/// # Errors
/// When the network does not fit, or the device fails.
pub(super) fn measure(
    args: &BenchTrainArgs,
    planned: &Planned,
    device: &ComputeDevice,
) -> Result<TrainDocument, Failure> {
    let Planned { config, stages, steps, .. } = planned;
    let mut plan = planned.plan.clone();
    prepare_device(device, config, &mut plan)?;
    let scratch = ScratchFolder::new()?;
    let folder = args.keep_input.as_deref().unwrap_or(scratch.path());
    let stream = random_tokens(
        &folder.join(TOKENS_FILE),
        plan.model.vocab_size,
        StepBench::tokens_needed(&plan, *steps),
        config.seed,
    )?;
    let mut bench = StepBench::new(device.clone(), config, &plan, stream)?;
    if args.keep_input.is_some() {
        write_tensors(&folder.join(WEIGHTS_FILE), bench.weights()).map_err(EngineError::from)?;
    } else {
        // Mapped files stay readable after they are unlinked, and nothing large is left behind if
        // this process is killed.
        let _ = fs::remove_file(folder.join(TOKENS_FILE));
    }
    let before = measure_matmul_peak(&bench.workers)?;
    let rounds = args.rounds.map_or(1, usize::from);
    let mut times = vec![Vec::new(); stages.len()];
    let mut memory = Vec::new();
    for round in 0..rounds {
        for (times, &idx) in times.iter_mut().zip(stages) {
            let stage = &plan.stages[idx];
            if !args.json {
                tell(&progress_line(stage, *steps, (rounds > 1).then_some(round)));
            }
            // Keep the memory for later rounds: releasing it would slow down their first steps.
            let measurement = (round == 0).then(PeakMemory::start);
            times.push(bench.time_steps(stage, *steps)?);
            memory.extend(measurement.map(|measurement| measurement.read(device)));
        }
    }
    let described = stages.iter().zip(times).zip(memory);
    let documents: Vec<StageDocument> = described
        .map(|((&idx, times), memory)| {
            StageDocument::new(idx, &plan.stages[idx], times, memory, config.training.recompute)
        })
        .collect();
    let peak = faster(before, measure_matmul_peak(&bench.workers)?);
    let sheet = if device.is_cpu { None } else { data_sheet(config.device) };
    let peaks = Peaks { matmul: peak.flops_per_second, data_sheet: sheet };
    Ok(TrainDocument {
        format_version: FORMAT_VERSION,
        bench: "train".into(),
        patchtui: env!("CARGO_PKG_VERSION").into(),
        config: config.name.clone(),
        device: device.description.clone(),
        threads: rayon::current_num_threads(),
        cpu: cpu_document(),
        num_parameters: plan.num_parameters,
        rounds,
        warmup_steps: steps.warmup,
        measured_steps: steps.measured,
        matmul_peak: MatmulDocument { size: peak.size, flops_per_second: peak.flops_per_second },
        data_sheet: sheet.map(|sheet| DataSheetDocument {
            gpu: sheet.name.into(),
            f32_flops_per_second: sheet.f32,
            bf16_flops_per_second: sheet.bf16,
        }),
        stages: compared(documents, peaks),
        warnings: plan.warnings,
    })
}

/// The stages with their shares of the peaks, and their speeds relative to the token stage.
fn compared(stages: Vec<StageDocument>, peaks: Peaks) -> Vec<StageDocument> {
    let token_stage = stages.iter().rev().find(|stage| stage.patch_size == 1);
    let token_speeds = token_stage.map(|stage| stage.round_tokens_per_second.clone());
    stages.into_iter().map(|stage| stage.compared(peaks, token_speeds.as_deref())).collect()
}

fn cpu_document() -> CpuDocument {
    let cpu = Processor::of_this_machine();
    CpuDocument {
        model: cpu.model,
        flags: cpu.features.into_iter().map(str::to_owned).collect(),
        kernels: vector_instructions().into(),
        matmul: matmul_instructions().into(),
    }
}

/// The progress line: stage, K and steps, and the round if there are several.
fn progress_line(stage: &StagePlan, steps: BenchSteps, round: Option<usize>) -> String {
    let round = round.map_or_else(String::new, |round| format!("round {}, ", round + 1));
    let steps = counted(steps.warmup + steps.measured, "step");
    format!(
        "{round}stage {}, K = {}: {steps} of {} tokens",
        stage.idx + 1,
        stage.patch_size,
        stage.tokens_per_step
    )
}

fn faster(a: MatmulPeak, b: MatmulPeak) -> MatmulPeak {
    if a.flops_per_second >= b.flops_per_second { a } else { b }
}
