//! Benchmark training steps of every stage: micro-batches, accumulation, clipping and update as in
//! a run, on the same threads, with random weights.
//!
//! Needs a plan and a stream of ids, but no run directory or listener. Start at
//! [`StepBench::time_steps`].

use std::ops::AddAssign;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use burn::tensor::Device;

use crate::config::{OptimizerState, RunConfig};
use crate::data::{BlockOrder, Loader, TokenStream};
use crate::engine::compute::Compute;
use crate::engine::device::ComputeDevice;
use crate::engine::error::EngineError;
use crate::engine::model::{LlamaForCausalLM, random_weights};
use crate::engine::named_tensor::NamedTensor;
use crate::engine::objective::{Objective, StepText};
use crate::engine::optimizer::AdamW;
use crate::engine::positions::Positions;
use crate::engine::step::{StepInput, StepPart, StepWatch};
use crate::engine::train::accumulate::{Accumulation, Computing};
use crate::engine::train::learner::{Learner, UpdateRule};
use crate::engine::workers::Workers;
use crate::plan::{RunPlan, StagePlan};
use crate::steer::StopFlag;

/// Takes training steps outside a run.
#[derive(Debug)]
pub struct StepBench {
    /// The device and the threads that compute.
    pub workers: Workers,
    learner: Learner,
    loader: Loader,
    recompute: bool,
    /// Steps taken in all stages.
    step: u64,
}

/// Which steps to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchSteps {
    /// Warm-up steps, which pay for page faults, compiling and tuning.
    pub warmup: usize,
    /// Measured steps.
    pub measured: usize,
}

/// Times of the steps of a stage.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StageTimes {
    /// Duration of each measured step.
    pub steps: Vec<Duration>,
    /// Time per part, over all of `split`.
    pub parts: PartTimes,
    /// Duration of all steps that were split into parts.
    pub split: Duration,
    /// Loss of every step, warm-up included: nats per scored token, before the update.
    pub losses: Vec<f64>,
}

/// Time of one or several steps, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartTimes {
    /// Reading ids and building the batch.
    pub data: Duration,
    /// As [`StepPart::Forward`].
    pub forward: Duration,
    /// As [`StepPart::Head`].
    pub head: Duration,
    /// As [`StepPart::Backward`].
    pub backward: Duration,
    /// Gradient norm, clipping and update.
    pub optimizer: Duration,
}

/// One step.
struct TimedStep {
    whole: Duration,
    parts: PartTimes,
    loss: f64,
}

impl StepBench {
    /// Random weights, initialized with the configuration's seed, that train on `stream` on
    /// `device`.
    ///
    /// # Errors
    /// When the system cannot start threads.
    pub fn new(
        device: ComputeDevice,
        config: &RunConfig,
        plan: &RunPlan,
        stream: TokenStream,
    ) -> Result<Self, EngineError> {
        let compute = Compute::new(device, config.training.precision);
        let Ok(model) = LlamaForCausalLM::new(
            &plan.model,
            &mut random_weights(config.seed, &plan.model),
            &compute,
        );
        let order = BlockOrder::new(stream.len(), plan.block_tokens, config.seed, false);
        Ok(Self {
            learner: Learner::new(model, AdamW::new(config.optimizer.clone())),
            workers: Workers::start(compute, StopFlag::default())?,
            loader: Loader::new(stream, order),
            recompute: config.training.recompute,
            step: 0,
        })
    }

    /// Number of tokens in a stream so that no stage of `plan` reads any of them twice in its
    /// `steps`.
    #[must_use]
    pub fn tokens_needed(plan: &RunPlan, steps: BenchSteps) -> u64 {
        let passes = if steps.measured == 0 { 1 } else { 2 };
        let most = plan.stages.iter().map(|stage| stage.tokens_per_step).max().unwrap_or(1);
        (most * (steps.warmup + passes * steps.measured) as u64).next_multiple_of(plan.block_tokens)
    }

    /// The current weights.
    #[must_use]
    pub fn weights(&self) -> Vec<NamedTensor> {
        self.learner.model().weights().cloned().collect()
    }

    /// Takes the warm-up and the measured steps of `stage`, at its peak learning rate, from the
    /// beginning of the stream.
    ///
    /// On a GPU the host does not wait inside a measured step, as in a run; to time the parts, the
    /// same number of extra steps is taken, in which it waits for each part.
    ///
    /// # Errors
    /// When the device fails.
    pub fn time_steps(
        &mut self,
        stage: &StagePlan,
        steps: BenchSteps,
    ) -> Result<StageTimes, EngineError> {
        let shared =
            self.learner.model().model.shared_input(Positions::of_sequence(stage.context_length));
        let scale = 1.0 / stage.targets_per_step() as f64;
        let input = StepInput { shared, scale, recompute: self.recompute };
        let is_cpu = self.workers.compute.device.is_cpu;
        let mut times = StageTimes::default();
        for idx in 0..steps.warmup + steps.measured {
            let time = self.take_step(stage, &input, idx, is_cpu)?;
            times.losses.push(time.loss);
            if idx < steps.warmup {
                continue;
            }
            times.steps.push(time.whole);
            if is_cpu {
                times.add_parts(&time);
            }
        }
        if !is_cpu {
            for idx in 0..steps.measured {
                let time =
                    self.take_step(stage, &input, steps.warmup + steps.measured + idx, true)?;
                times.add_parts(&time);
            }
        }
        Ok(times)
    }

    /// Takes step `idx` of a stage, split into parts or as a whole.
    fn take_step(
        &mut self,
        stage: &StagePlan,
        input: &StepInput,
        idx: usize,
        is_split: bool,
    ) -> Result<TimedStep, EngineError> {
        let device = self.workers.compute.device.clone();
        let waits_for = (is_split && !device.is_cpu).then(|| device.device.clone());
        let text = StepText {
            loader: &self.loader,
            objective: &Objective::Pretraining,
            data_position: idx as u64 * stage.tokens_per_step,
            stage,
        };
        let started = Instant::now();
        let (mut parts, mut sum) = (PartTimes::default(), Accumulation::default());
        while !sum.is_complete(stage) {
            let begun = Instant::now();
            let batch = text.batch(sum.num_micro_batches)?;
            wait_for(waits_for.as_ref());
            let mut ended = Instant::now();
            parts.data += ended - begun;
            let (sender, heard) = mpsc::channel();
            let with = Computing { workers: &self.workers, model: self.learner.computing(), input };
            let is_added =
                sum.add(with, batch, Marks { heard: sender, waits_for: waits_for.clone() });
            assert!(is_added, "nobody stops a measurement");
            for (part, at) in heard.try_iter() {
                *parts.of(part) += at - ended;
                ended = at;
            }
        }
        let begun = Instant::now();
        self.step += 1;
        let resets_moments = idx == 0 && stage.optimizer_state == OptimizerState::Reset;
        let rule =
            UpdateRule { step: self.step, learning_rate: stage.schedule.peak, resets_moments };
        let measured = self.learner.update(sum.finish(input), rule)?;
        device.device.sync()?;
        parts.optimizer = begun.elapsed();
        let whole = started.elapsed();
        let loss = measured.read()?.loss;
        self.learner.check_poison(self.step)?;
        Ok(TimedStep { whole, parts, loss })
    }
}

/// Records when each part has ended.
struct Marks {
    heard: Sender<(StepPart, Instant)>,
    waits_for: Option<Device>,
}

impl StepWatch for Marks {
    fn is_stopped(&self) -> bool {
        false
    }

    fn ended(&self, part: StepPart) {
        wait_for(self.waits_for.as_ref());
        // The step that observes outlives the micro-batch.
        let _ = self.heard.send((part, Instant::now()));
    }
}

/// Waits until a GPU has completed its queue; a failure is reported when a number is read.
fn wait_for(device: Option<&Device>) {
    if let Some(device) = device {
        let _ = device.sync();
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, later: Self) {
        self.steps.extend(later.steps);
        self.parts += later.parts;
        self.split += later.split;
        self.losses.extend(later.losses);
    }
}

impl StageTimes {
    fn add_parts(&mut self, step: &TimedStep) {
        self.parts += step.parts;
        self.split += step.whole;
    }
}

impl PartTimes {
    fn of(&mut self, part: StepPart) -> &mut Duration {
        match part {
            StepPart::Forward => &mut self.forward,
            StepPart::Head => &mut self.head,
            StepPart::Backward => &mut self.backward,
        }
    }

    /// Total.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.micro_batches() + self.optimizer
    }

    /// The parts of each micro-batch.
    #[must_use]
    pub fn micro_batches(&self) -> Duration {
        self.data + self.forward + self.head + self.backward
    }
}

impl AddAssign for PartTimes {
    fn add_assign(&mut self, other: Self) {
        self.data += other.data;
        self.forward += other.forward;
        self.head += other.head;
        self.backward += other.backward;
        self.optimizer += other.optimizer;
    }
}
