//! A run as a sequence of records, as sent by an engine, up to any point.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use patchtui::config::{OptimizerState, PatchSize, ScheduleKind};
use patchtui::control::Feed;
use patchtui::plan::{Cadences, Cost, CostedStage, ModelShape, RunPlan, Schedule, StagePlan};
use patchtui::record::{
    Activations, CheckpointInfo, CommandNote, ControlChange, ControlState, Decision, Evaluation,
    History, LayerActivation, MeasuredLoss, Outcome, Progress, Record, RunCommand, RunEnd,
    RunEvent, RunHeader, Sample, StageLedger, StageStart, StepMetrics, TrialSteps, Trouble,
    Warning,
};
use patchtui::tui::{Access, App, Effect, Markers, Msg, RunId, RunScreen, Screen, Theme};

/// Steps of the run, two thirds of them at K = 4.
pub(crate) const STEPS: u64 = 180;
/// The switch.
pub(crate) const SWITCH: u64 = 120;

/// A run that can be built step by step.
pub(crate) struct Story {
    /// The records so far.
    pub(crate) records: Vec<Record>,
    header: RunHeader,
}

/// A plan with two stages, 4 layers and a known entropy rate.
pub(crate) fn plan() -> RunPlan {
    let model = ModelShape {
        vocab_size: 512,
        hidden_size: 128,
        intermediate_size: 384,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 256,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.02,
        tie_word_embeddings: false,
    };
    let stages = vec![stage(&model, 4, 0, SWITCH), stage(&model, 1, SWITCH, STEPS - SWITCH)];
    let cost =
        stages.iter().map(|stage| stage.cost(stage.steps)).fold(Cost::default(), |sum, cost| {
            Cost {
                tokens: sum.tokens + cost.tokens,
                positions: sum.positions + cost.positions,
                flops: sum.flops + cost.flops,
            }
        });
    RunPlan {
        num_parameters: model.num_parameters(),
        token_level_flops: cost.tokens as f64 * model.flops_per_position(256),
        memory: model.memory(16, 256, false),
        model,
        stages,
        steps: STEPS,
        cost,
        block_tokens: 1024,
        train_tokens: Some(4_000_000),
        entropy_rate: Some(1.926),
        evaluation_tokens: 8192,
        cadences: Cadences {
            report: 1,
            evaluation: Some(9),
            activations: Some(9),
            samples: Some(18),
            tasks: None,
            checkpoint: Some(60),
        },
        warnings: Vec::new(),
        notes: Vec::new(),
    }
}

fn stage(model: &ModelShape, patch_size: u64, first_step: u64, steps: u64) -> StagePlan {
    let sequences = 16_384 / (256 * patch_size as usize);
    StagePlan {
        idx: usize::from(first_step > 0),
        patch_size: PatchSize::new(patch_size).unwrap(),
        first_step,
        steps,
        first_token: first_step * 16_384,
        first_data_token: first_step * 16_384,
        context_length: 256,
        tokens_per_step: 16_384,
        micro_batch_size: 16,
        num_micro_batches: sequences / 16,
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            peak: 1e-3,
            minimum: 0.0,
            warmup_steps: 3,
            decay_steps: 0,
            steps,
        },
        optimizer_state: OptimizerState::Reset,
        flops_per_position: model.flops_per_position(256),
    }
}

impl Story {
    /// A run that has not reported anything yet.
    pub(crate) fn new() -> Self {
        let decision =
            |label: &str, text: &str| Decision { label: label.into(), text: text.into() };
        let header = RunHeader {
            name: "demo".into(),
            directory: PathBuf::from("/home/alice/runs/demo"),
            device: "cpu (AVX-512)".into(),
            threads: 2,
            resumed_from: None,
            decisions: vec![
                decision("patches", "mean of the K token embeddings"),
                decision("optimizer", "optimizer state reset at the switch"),
            ],
            plan: (&plan()).into(),
        };
        Self { records: Vec::new(), header }
    }

    /// Preparing text, before there is a plan.
    pub(crate) fn preparing() -> Self {
        let mut story = Self::new();
        story.tell(RunEvent::Progress(Progress {
            activity: "reading text (bytes)".into(),
            done: 12_400_000,
            total: Some(20_000_000),
        }));
        story
    }

    /// Loaded, before the first step.
    pub(crate) fn loading() -> Self {
        let mut story = Self::preparing();
        story.start();
        story.tell(RunEvent::Progress(Progress {
            activity: "trying one step of each stage".into(),
            done: 1,
            total: Some(2),
        }));
        story
    }

    /// After `steps` steps.
    pub(crate) fn after(steps: u64) -> Self {
        let mut story = Self::preparing();
        story.start();
        story.tell(RunEvent::TrialStepsTaken(TrialSteps {
            tokens_per_second: vec![52_000.0, 14_000.0],
        }));
        story.control(ControlState::Running, 0);
        story.begin_stage(0, 0);
        for step in 1..=steps {
            story.step(step);
        }
        story
    }

    /// Completed.
    pub(crate) fn done() -> Self {
        let mut story = Self::after(STEPS);
        story.tell(RunEvent::RunFinished(RunEnd {
            outcome: Outcome::Completed,
            step: STEPS,
            tokens: STEPS * 16_384,
            active_seconds: 108.4,
            token_loss: Some(token_loss(STEPS)),
            whole: Some(MeasuredLoss {
                token_loss: token_loss(STEPS) + 0.01,
                standard_error: Some(0.012),
                bits_per_byte: Some((token_loss(STEPS) + 0.01) / 2.6),
                targets: 120_000,
            }),
            error: None,
        }));
        story
    }

    /// Failed in the second stage.
    pub(crate) fn failed() -> Self {
        let mut story = Self::after(140);
        story.tell(RunEvent::RunFinished(RunEnd {
            outcome: Outcome::Failed,
            step: 140,
            tokens: 140 * 16_384,
            active_seconds: 70.0,
            token_loss: Some(token_loss(135)),
            whole: None,
            error: Some(Trouble {
                message: "the loss of step 141 is not a number".into(),
                hint: Some("lower optimizer.learning_rate and run with --resume".into()),
            }),
        }));
        story
    }

    /// Adds a record.
    pub(crate) fn tell(&mut self, event: RunEvent) {
        let seq = self.records.len() as u64 + 1;
        let at = format!("2026-03-01T12:{:02}:{:02}Z", seq / 60 % 60, seq % 60);
        self.records.push(Record { seq, at, attempt: 1, event });
    }

    /// Adds a change of state.
    pub(crate) fn control(&mut self, state: ControlState, step: u64) {
        self.tell(RunEvent::ControlChanged(ControlChange { state, step }));
    }

    /// The run screen after the records so far.
    pub(crate) fn history(&self) -> History {
        let mut history = History::default();
        self.records.iter().for_each(|record| history.apply(record));
        history
    }

    fn start(&mut self) {
        self.tell(RunEvent::RunStarted(Box::new(self.header.clone())));
    }

    fn begin_stage(&mut self, stage: usize, step: u64) {
        let patch_size = self.header.plan.stages[stage].patch_size;
        self.tell(RunEvent::StageStarted(StageStart {
            stage,
            patch_size,
            step,
            tokens: step * 16_384,
            optimizer_reset: true,
        }));
    }

    fn step(&mut self, step: u64) {
        let plan = plan();
        let stage = plan.stage_idx_after(step - 1);
        let stage_plan = &plan.stages[stage];
        let (patch_size, tokens) = (stage_plan.patch_size, step * 16_384);
        let in_stage = (step - stage_plan.first_step) as f64;
        let loss = if stage == 0 {
            3.6 + 2.6 * (-in_stage / 25.0).exp() + wave(step)
        } else {
            token_loss(step) + 0.6 * (-in_stage / 3.0).exp() + wave(step)
        };
        self.tell(RunEvent::StepCompleted(StepMetrics {
            step,
            stage,
            patch_size,
            epoch: 0,
            tokens,
            positions: plan.cost_after(step).positions,
            flops: plan.cost_after(step).flops,
            loss,
            learning_rate: stage_plan.schedule.learning_rate(step - 1 - stage_plan.first_step),
            grad_norm: 0.8 + wave(step),
            step_seconds: if stage == 0 { 0.31 } else { 1.2 },
            active_seconds: 0.31 * step.min(SWITCH) as f64
                + 1.2 * step.saturating_sub(SWITCH) as f64,
            tokens_per_second: if stage == 0 { 52_400.0 } else { 13_650.0 },
            data_wait_seconds: 0.0,
        }));
        if step.is_multiple_of(9) {
            let token_loss = token_loss(step);
            self.tell(RunEvent::Evaluated(Evaluation {
                step,
                stage,
                patch_size,
                tokens,
                token_loss,
                perplexity: token_loss.exp(),
                standard_error: Some(0.024),
                bits_per_byte: Some(token_loss / 2.6),
                targets: 30_000,
                all_targets: Some(120_000),
                whole: None,
                seconds: 0.4,
            }));
            let layers = (0..4).map(|layer| activation(step, layer)).collect();
            self.tell(RunEvent::ActivationsMeasured(Activations {
                step,
                stage,
                patch_size,
                tokens,
                threshold: 0.5,
                layers,
            }));
        }
        if step.is_multiple_of(18) {
            self.sample(
                step,
                stage,
                "The old man",
                " went to the house and saw that the door was open.",
            );
            self.sample(step, stage, "In the garden", " the children were playing with the dog.");
        }
        if step.is_multiple_of(60) {
            let path = PathBuf::from(format!("checkpoints/step-{step:08}"));
            self.tell(RunEvent::CheckpointSaved(CheckpointInfo {
                step,
                path,
                bytes: 14_300_000,
                seconds: 0.2,
                permanent: step == SWITCH || step == STEPS,
            }));
        }
        if step == 30 {
            self.tell(RunEvent::Warning(Warning {
                message: "7 of 120 000 records are not valid UTF-8 and were skipped".into(),
            }));
        }
        if step == stage_plan.last_step() {
            let cost = stage_plan.cost(stage_plan.steps);
            let (steps, speed) = (stage_plan.steps, if stage == 0 { 52_400.0 } else { 13_650.0 });
            self.tell(RunEvent::StageCompleted(StageLedger {
                stage,
                patch_size,
                step,
                steps,
                tokens: cost.tokens,
                positions: cost.positions,
                flops: cost.flops,
                active_seconds: cost.tokens as f64 / speed,
                tokens_per_second: speed,
            }));
            if stage == 0 {
                self.begin_stage(1, step);
            }
        }
    }

    fn sample(&mut self, step: u64, stage: usize, prompt: &str, text: &str) {
        self.tell(RunEvent::Sampled(Sample {
            step,
            stage,
            tokens: step * 16_384,
            prompt: prompt.into(),
            text: text.into(),
        }));
    }
}

/// An answer of the engine to a command.
pub(crate) fn note(command: RunCommand, message: &str) -> CommandNote {
    CommandNote {
        id: "c1".into(),
        command,
        from: "keyboard of alice (pid 12)".into(),
        step: 66,
        message: message.into(),
        also: Vec::new(),
        seconds: None,
        bytes: None,
    }
}

/// The process id that the client has in tests.
pub(crate) const CLIENT: u64 = 12;

/// The time between two key presses of a person.
pub(crate) const PAUSE: Duration = Duration::from_millis(60);

/// A client that shows one run.
#[derive(Debug, Clone)]
pub(crate) struct Client(pub(crate) App);

impl Client {
    pub(crate) fn new(access: Access, theme: Theme) -> Self {
        Self(App::of_run(RunScreen::new(RunId::FIRST, "demo".into(), access, theme), CLIENT))
    }

    /// Updates the client; pauses before a key, like a person.
    pub(crate) fn update(&mut self, msg: Msg) -> Vec<Effect> {
        if matches!(msg, Msg::Key(_)) {
            self.0.update(Msg::Clock(self.now + PAUSE));
        }
        self.0.update(msg)
    }
}

impl Deref for Client {
    type Target = RunScreen;

    fn deref(&self) -> &RunScreen {
        let Screen::Run(run) = &self.0.screen else { panic!("no run is shown") };
        run
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut RunScreen {
        let Screen::Run(run) = &mut self.0.screen else { panic!("no run is shown") };
        run
    }
}

/// A message of the first run.
pub(crate) fn heard(feed: Feed) -> Msg {
    Msg::Feed(RunId::FIRST, feed)
}

/// A client without colors that has received `story`.
pub(crate) fn app(story: &Story) -> Client {
    let mut client = Client::new(Access::Steer, Theme::plain(Markers::Braille));
    client.update(heard(Feed::Snapshot(Box::new(story.history()))));
    client
}

/// A falling curve with a drop after the switch.
pub(crate) fn token_loss(step: u64) -> f64 {
    let patch = 2.9 + 3.3 * (-(step.min(SWITCH) as f64) / 40.0).exp();
    let token = step.saturating_sub(SWITCH) as f64;
    if token > 0.0 { 2.02 + (patch - 2.02) * (-token / 12.0).exp() } else { patch }
}

/// Small rates that fall at K = 4 and rise after the switch.
fn activation(step: u64, layer: u32) -> LayerActivation {
    let depth = f64::from(layer + 1);
    let rate = if step <= SWITCH {
        0.012 * depth * (1.0 + 20.0 * (-(step as f64) / 30.0).exp())
    } else {
        0.6 * depth * (step - SWITCH) as f64 / 60.0
    };
    LayerActivation { rate, mean_abs: 0.021 * depth * (1.0 + step as f64 / 200.0) }
}

/// Reproducible noise.
fn wave(step: u64) -> f64 {
    let phase = step as f64;
    0.06 * (phase * 1.7).sin() + 0.04 * (phase * 0.61).cos()
}
