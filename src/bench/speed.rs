//! The speed of the stages of a plan on this device, measured on random tokens until it is stable.
//!
//! What would take too long is measured on a smaller network or smaller micro-batches and scaled up
//! by its operations. Start at [`measure`].

use std::time::{Duration, Instant};

use crate::advice::Failure;
use crate::bench::scratch::ScratchFolder;
use crate::config::{OptimizerState, RunConfig};
use crate::data::random_tokens;
use crate::engine::allocator::keep_freed_memory;
use crate::engine::device::ComputeDevice;
use crate::engine::faults::guarded;
use crate::engine::{BenchSteps, EngineError, StepBench};
use crate::plan::{Measured, RunPlan, StagePlan, StageSpeed};

/// Operations of the largest micro-batch that is measured at full size: a second or two. A
/// larger one is scaled down.
const MOST_CPU_FLOPS: f64 = 2e11;
const MOST_GPU_FLOPS: f64 = 1e14;
/// Minimum sequence length of a scaled-down micro-batch.
const LEAST_CONTEXT: usize = 64;
/// A speed is stable when this many repetitions in a row agree this well.
const AGREEING: usize = 3;
const TOLERANCE: f64 = 0.05;
/// After the first limit an unstable stage gets a range; after the second, the remaining stages
/// are computed, not measured.
const STAGE_LIMIT: Duration = Duration::from_secs(5);
const PLAN_LIMIT: Duration = Duration::from_secs(20);
/// Maximum number of random tokens.
const MOST_TOKENS: u64 = 1 << 26;
/// Keeps the weights finite while they train on random text.
const LEARNING_RATE: f64 = 1e-6;

/// Makes a plan smaller; returns whether that was possible.
type Cut = fn(&mut RunPlan) -> bool;

/// Seconds per part of a step, one number per repetition.
#[derive(Debug, Default)]
struct Repetitions {
    micro_batches: Vec<f64>,
    updates: Vec<f64>,
}

/// Measures the stages of `plan` on `device`.
///
/// # Errors
/// When the device fails.
pub fn measure(
    device: &ComputeDevice,
    config: &RunConfig,
    plan: &RunPlan,
) -> Result<Measured, Failure> {
    let small = smaller(plan, if device.is_cpu { MOST_CPU_FLOPS } else { MOST_GPU_FLOPS });
    let longest = small.stages.iter().map(|stage| stage.tokens_per_step).max().unwrap_or(1);
    let tokens = (3 * longest).next_multiple_of(small.block_tokens);
    // A sequence of one position has nothing to learn.
    if tokens > MOST_TOKENS || small.stages.iter().any(|stage| stage.context_length < 2) {
        return Ok(Measured::default());
    }
    keep_freed_memory();
    // Fails if this process already has a thread pool; it then keeps its number of threads.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(config.threads).build_global();
    let scratch = ScratchFolder::new()?;
    let stream =
        random_tokens(&scratch.path().join("tokens"), small.model.vocab_size, tokens, config.seed)?;
    let speeds = guarded(device.is_cpu, || {
        device.spare_memory();
        speeds(plan, &small, StepBench::new(device.clone(), config, &small, stream)?)
    });
    let speeds = speeds.map_err(|error| Failure::failed(error.to_string(), "try --device cpu"))?;
    Ok(Measured { speeds, scaled_from: difference(plan, &small) })
}

/// Speeds of the stages of `plan`, derived from those of the same stages of `small`.
fn speeds(
    plan: &RunPlan,
    small: &RunPlan,
    mut bench: StepBench,
) -> Result<Vec<StageSpeed>, EngineError> {
    let begun = Instant::now();
    let flops_per_token =
        |stage: &StagePlan| stage.flops_per_position / stage.patch_size.get() as f64;
    let mut speeds: Vec<StageSpeed> = Vec::new();
    for (idx, first) in plan.first_stages_alike().into_iter().enumerate() {
        let stage = &plan.stages[idx];
        speeds.push(if first < idx {
            speeds[first]
        } else if idx > 0 && begun.elapsed() > PLAN_LIMIT {
            let StageSpeed { median, slowest, fastest, .. } = speeds[0];
            let factor = flops_per_token(&plan.stages[0]) / flops_per_token(stage);
            StageSpeed {
                median: median * factor,
                slowest: slowest * factor,
                fastest: fastest * factor,
                repetitions: 0,
                is_stable: false,
            }
        } else {
            let parameters = plan.num_parameters as f64 / small.num_parameters as f64;
            repeat(&mut bench, &small.stages[idx])?.speed(
                stage,
                micro_batch_flops(stage) / micro_batch_flops(&small.stages[idx]),
                parameters,
            )
        });
    }
    Ok(speeds)
}

fn repeat(bench: &mut StepBench, stage: &StagePlan) -> Result<Repetitions, EngineError> {
    let begun = Instant::now();
    let mut found = Repetitions::default();
    let mut warmup = 1;
    while !found.is_stable() && (found.micro_batches.len() < 2 || begun.elapsed() < STAGE_LIMIT) {
        let parts = bench.time_steps(stage, BenchSteps { warmup, measured: 1 })?.parts;
        found.micro_batches.push(parts.micro_batches().as_secs_f64());
        found.updates.push(parts.optimizer.as_secs_f64());
        warmup = 0;
    }
    Ok(found)
}

impl Repetitions {
    fn is_stable(&self) -> bool {
        let newest = &self.micro_batches[self.micro_batches.len().saturating_sub(AGREEING)..];
        let (least, most) = (
            newest.iter().copied().fold(f64::MAX, f64::min),
            newest.iter().copied().fold(0.0, f64::max),
        );
        newest.len() == AGREEING && most - least <= TOLERANCE * least
    }

    /// Speed of `stage`, whose micro-batches take `micro_batch` times as many operations and
    /// whose updates `update` times as many.
    fn speed(&self, stage: &StagePlan, micro_batch: f64, update: f64) -> StageSpeed {
        let is_stable = self.is_stable();
        let trusted = if is_stable {
            &self.micro_batches[self.micro_batches.len() - AGREEING..]
        } else {
            &self.micro_batches[..]
        };
        let seconds_of_update = median(&self.updates) * update;
        let speed = |seconds: f64| {
            let step = seconds * micro_batch * stage.num_micro_batches as f64 + seconds_of_update;
            stage.tokens_per_step as f64 / step.max(f64::MIN_POSITIVE)
        };
        StageSpeed {
            median: speed(median(trusted)),
            slowest: speed(trusted.iter().copied().fold(0.0, f64::max)),
            fastest: speed(trusted.iter().copied().fold(f64::MAX, f64::min)),
            repetitions: self.micro_batches.len(),
            is_stable,
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn micro_batch_flops(stage: &StagePlan) -> f64 {
    (stage.micro_batch_size * stage.context_length) as f64 * stage.flops_per_position
}

/// `plan` with steps of one micro-batch of at most `most` operations, if it can be made that
/// small: with fewer layers, fewer sequences and shorter sequences.
fn smaller(plan: &RunPlan, most: f64) -> RunPlan {
    let mut small = plan.clone();
    let is_long =
        |small: &RunPlan| small.stages.iter().map(micro_batch_flops).fold(0.0, f64::max) > most;
    let cuts: [Cut; 3] = [halve_layers, halve_sequences, halve_contexts];
    for cut in cuts {
        while is_long(&small) && cut(&mut small) {}
    }
    for stage in &mut small.stages {
        stage.num_micro_batches = 1;
        stage.tokens_per_step = (stage.micro_batch_size * stage.sequence_tokens()) as u64;
        stage.schedule.peak = LEARNING_RATE;
        stage.optimizer_state = OptimizerState::Keep;
    }
    small
}

fn halve_layers(small: &mut RunPlan) -> bool {
    let layers = small.model.num_hidden_layers;
    small.model.num_hidden_layers = layers.div_ceil(2);
    small.num_parameters = small.model.num_parameters();
    count_operations(small);
    layers > 1
}

fn halve_sequences(small: &mut RunPlan) -> bool {
    let can = small.stages.iter().any(|stage| stage.micro_batch_size > 1);
    small
        .stages
        .iter_mut()
        .for_each(|stage| stage.micro_batch_size = stage.micro_batch_size.div_ceil(2));
    can
}

/// Half a sequence still divides the blocks of the data.
fn halve_contexts(small: &mut RunPlan) -> bool {
    let can_be_halved = |stage: &StagePlan| {
        stage.context_length.is_multiple_of(2) && stage.context_length >= 2 * LEAST_CONTEXT
    };
    let can = small.stages.iter().any(can_be_halved);
    small
        .stages
        .iter_mut()
        .filter(|stage| can_be_halved(stage))
        .for_each(|stage| stage.context_length /= 2);
    count_operations(small);
    can
}

fn count_operations(small: &mut RunPlan) {
    let model = &small.model;
    small.stages.iter_mut().for_each(|stage| {
        stage.flops_per_position = model.flops_per_position(stage.context_length);
    });
}

/// What is smaller in `small` than in `plan`, in the stage where the difference is largest.
fn difference(plan: &RunPlan, small: &RunPlan) -> Option<String> {
    let pairs = plan.stages.iter().zip(&small.stages);
    let (stage, small_stage) =
        pairs.max_by(|a, b| micro_batch_flops(a.0).total_cmp(&micro_batch_flops(b.0)))?;
    let sizes = [
        (small.model.num_hidden_layers, plan.model.num_hidden_layers, "layers"),
        (small_stage.micro_batch_size, stage.micro_batch_size, "sequences"),
        (small_stage.context_length, stage.context_length, "positions"),
    ];
    let parts: Vec<_> = sizes
        .iter()
        .filter(|(part, whole, _)| part < whole)
        .map(|(part, whole, what)| format!("{part} of {whole} {what}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{LoadRequest, load};
    use crate::plan::Corpus;

    fn plan(source: &str) -> RunPlan {
        let config =
            load(&LoadRequest { source, sets: &[], current_dir: Path::new("/") }).unwrap().config;
        RunPlan::new(
            &config,
            &Corpus {
                tokenizer_vocab_size: 1024,
                train_tokens: None,
                entropy_rate: None,
                device_is_cpu: true,
            },
        )
        .unwrap()
    }

    #[test]
    fn only_what_takes_long_is_made_smaller() {
        let demo = plan("demo");
        assert_eq!(difference(&demo, &smaller(&demo, MOST_CPU_FLOPS)), None);
        let paper = plan("paper-2.7b");
        let small = smaller(&paper, MOST_CPU_FLOPS);
        assert_eq!(small.model.num_hidden_layers, 1);
        assert!(
            small
                .stages
                .iter()
                .all(|stage| micro_batch_flops(stage) <= MOST_CPU_FLOPS
                    && stage.micro_batch_size == 1)
        );
        assert!(
            difference(&paper, &small).unwrap().starts_with("1 of 32 layers"),
            "{:?}",
            difference(&paper, &small)
        );
        assert!(
            small
                .stages
                .iter()
                .all(|stage| paper.block_tokens.is_multiple_of(stage.tokens_per_step))
        );
        assert!(
            smaller(&paper, 0.0).stages.iter().all(|stage| stage.context_length >= LEAST_CONTEXT)
        );
    }

    #[test]
    fn a_speed_is_stable_when_the_newest_repetitions_agree() {
        let found =
            |seconds: &[f64]| Repetitions { micro_batches: seconds.to_vec(), updates: vec![1.0] };
        assert!(!found(&[1.0, 1.0]).is_stable() && !found(&[1.0, 1.0, 1.2]).is_stable());
        assert!(found(&[9.0, 1.0, 1.04, 1.02]).is_stable());
        let stage = StagePlan {
            num_micro_batches: 10,
            tokens_per_step: 1000,
            ..plan("demo").stages[0].clone()
        };
        let unstable = found(&[1.0, 2.0]).speed(&stage, 3.0, 5.0);
        let speed = |seconds: f64| (1000.0 / (10.0 * 3.0 * seconds + 5.0)).to_bits();
        assert_eq!(
            [unstable.slowest, unstable.fastest].map(f64::to_bits),
            [speed(2.0), speed(1.0)]
        );
        let stable = found(&[9.0, 1.0, 1.04, 1.02]).speed(&stage, 3.0, 5.0);
        assert_eq!(
            (stable.median.to_bits(), stable.repetitions, stable.is_stable),
            (speed(1.02), 4, true),
            "the first one does not count"
        );
    }
}
