//! A small run without a trainer: a plan with two stages, and the events that a trainer would send.

use std::path::Path;

use patchtui::config::{OptimizerState, PatchSize, ScheduleKind};
use patchtui::plan::{Cadences, Cost, Memory, ModelShape, RunPlan, Schedule, StagePlan};
use patchtui::record::{
    Activations, CheckpointInfo, ControlChange, ControlState, Decision, Evaluation,
    LayerActivation, MeasuredLoss, Outcome, Progress, Record, RunEnd, RunEvent, RunHeader, Sample,
    StageLedger, StageStart, StepMetrics, TrialSteps, Warning,
};

/// Updates of the run: the first four at K = 4, the others at K = 1.
pub(crate) const STEPS: u64 = 6;
const SWITCH: u64 = 4;
const TOKENS_PER_STEP: u64 = 1024;

pub(crate) fn patch_size(tokens: u64) -> PatchSize {
    PatchSize::new(tokens).unwrap()
}

pub(crate) fn plan() -> RunPlan {
    let model = ModelShape {
        vocab_size: 320,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        max_position_embeddings: 64,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-6,
        initializer_range: 0.02,
        tie_word_embeddings: false,
    };
    let stage = |k: u64, first_step: u64, steps: u64| StagePlan {
        idx: usize::from(first_step > 0),
        patch_size: patch_size(k),
        first_step,
        steps,
        first_token: first_step * TOKENS_PER_STEP,
        first_data_token: first_step * TOKENS_PER_STEP,
        context_length: 64,
        tokens_per_step: TOKENS_PER_STEP,
        micro_batch_size: 2,
        num_micro_batches: 2,
        schedule: Schedule {
            kind: ScheduleKind::Cosine,
            peak: 3e-4,
            minimum: 0.0,
            warmup_steps: 1,
            decay_steps: 0,
            steps,
        },
        optimizer_state: OptimizerState::Reset,
        flops_per_position: 1e6,
    };
    RunPlan {
        num_parameters: model.num_parameters(),
        memory: Memory { state: 3_100_000, activations: 12_000_000, checkpoint: 1_200_000 },
        model,
        stages: vec![stage(4, 0, SWITCH), stage(1, SWITCH, STEPS - SWITCH)],
        steps: STEPS,
        cost: Cost { tokens: 6144, positions: 3072, flops: 3.072e9 },
        token_level_flops: 6.144e9,
        block_tokens: 256,
        train_tokens: Some(100_000),
        entropy_rate: Some(1.25),
        evaluation_tokens: 8192,
        cadences: Cadences {
            report: 1,
            evaluation: Some(2),
            activations: Some(2),
            samples: Some(4),
            tasks: None,
            checkpoint: Some(2),
        },
        warnings: vec!["160 of 100000 training tokens are never read".into()],
        notes: Vec::new(),
    }
}

pub(crate) fn header(directory: &Path, resumed_from: Option<u64>) -> RunEvent {
    RunEvent::RunStarted(Box::new(RunHeader {
        name: "books".into(),
        directory: directory.to_path_buf(),
        device: "CPU (flex)".into(),
        threads: 2,
        resumed_from,
        decisions: vec![Decision { label: "first patch".into(), text: "has no loss".into() }],
        plan: (&plan()).into(),
    }))
}

pub(crate) fn step(step: u64) -> RunEvent {
    let stage = usize::from(step > SWITCH);
    RunEvent::StepCompleted(StepMetrics {
        step,
        stage,
        patch_size: patch_size(if stage == 0 { 4 } else { 1 }),
        epoch: 0,
        tokens: step * TOKENS_PER_STEP,
        positions: step * 256,
        flops: step as f64 * 2.56e8,
        loss: 5.7 - 0.125 * step as f64,
        learning_rate: 3e-4,
        grad_norm: 1.5,
        step_seconds: 0.5,
        active_seconds: 0.5 * step as f64,
        tokens_per_second: 2048.0,
        data_wait_seconds: 0.01,
    })
}

pub(crate) fn evaluation(step: u64, token_loss: f64) -> RunEvent {
    let stage = usize::from(step > SWITCH);
    let patch_size = patch_size(if stage == 0 { 4 } else { 1 });
    let tokens = step * TOKENS_PER_STEP;
    RunEvent::Evaluated(Evaluation {
        step,
        stage,
        patch_size,
        tokens,
        token_loss,
        perplexity: token_loss.exp(),
        standard_error: Some(0.02),
        bits_per_byte: Some(token_loss / 3.0),
        targets: 256_000,
        all_targets: Some(1_000_000),
        whole: (step == STEPS).then_some(whole_loss(token_loss)),
        seconds: 1.25,
    })
}

pub(crate) fn whole_loss(token_loss: f64) -> MeasuredLoss {
    MeasuredLoss {
        token_loss: token_loss + 0.25,
        standard_error: Some(0.01),
        bits_per_byte: Some((token_loss + 0.25) / 3.0),
        targets: 1_000_000,
    }
}

pub(crate) fn checkpoint(step: u64) -> RunEvent {
    RunEvent::CheckpointSaved(CheckpointInfo {
        step,
        path: format!("checkpoints/step-{step:08}").into(),
        bytes: 1_200_000,
        seconds: 0.25,
        permanent: step == STEPS,
    })
}

pub(crate) fn end(outcome: Outcome, step: u64) -> RunEnd {
    RunEnd {
        outcome,
        step,
        tokens: step * TOKENS_PER_STEP,
        active_seconds: 0.5 * step as f64,
        token_loss: Some(4.5),
        whole: None,
        error: None,
    }
}

/// The events of a whole run, in order.
pub(crate) fn whole_run(directory: &Path) -> Vec<RunEvent> {
    let start = |stage: usize, k: u64, step: u64| {
        RunEvent::StageStarted(StageStart {
            stage,
            patch_size: patch_size(k),
            step,
            tokens: step * TOKENS_PER_STEP,
            optimizer_reset: stage > 0,
        })
    };
    let ledger = |stage: usize, k: u64, step: u64, steps: u64| {
        let (tokens, seconds) = (steps * TOKENS_PER_STEP, 0.5 * steps as f64);
        let positions = tokens / k;
        RunEvent::StageCompleted(StageLedger {
            stage,
            patch_size: patch_size(k),
            step,
            steps,
            tokens,
            positions,
            flops: positions as f64 * 1e6,
            active_seconds: seconds,
            tokens_per_second: tokens as f64 / seconds,
        })
    };
    let layers = vec![
        LayerActivation { rate: 12.5, mean_abs: 0.25 },
        LayerActivation { rate: 25.0, mean_abs: 0.5 },
    ];
    vec![
        RunEvent::Progress(Progress {
            activity: "reading text (bytes)".into(),
            done: 0,
            total: Some(8),
        }),
        RunEvent::Progress(Progress {
            activity: "reading text (bytes)".into(),
            done: 1,
            total: Some(8),
        }),
        RunEvent::Progress(Progress {
            activity: "reading text (bytes)".into(),
            done: 8,
            total: Some(8),
        }),
        header(directory, None),
        RunEvent::TrialStepsTaken(TrialSteps { tokens_per_second: vec![2048.0, 512.0] }),
        RunEvent::ControlChanged(ControlChange { state: ControlState::Running, step: 0 }),
        start(0, 4, 0),
        step(1),
        step(2),
        evaluation(2, 5.5),
        RunEvent::ActivationsMeasured(Activations {
            step: 2,
            stage: 0,
            patch_size: patch_size(4),
            tokens: 2048,
            threshold: 0.5,
            layers,
        }),
        checkpoint(2),
        step(3),
        RunEvent::Warning(Warning { message: "the disk is nearly full".into() }),
        step(4),
        evaluation(4, 5.0),
        RunEvent::Sampled(Sample {
            step: 4,
            stage: 0,
            tokens: 4096,
            prompt: "The cat".into(),
            text: " sat on the mat".into(),
        }),
        checkpoint(4),
        ledger(0, 4, 4, 4),
        start(1, 1, 4),
        step(5),
        step(6),
        evaluation(6, 4.5),
        checkpoint(6),
        ledger(1, 1, 6, 2),
        RunEvent::RunFinished(end(Outcome::Completed, 6)),
    ]
}

pub(crate) fn record(seq: u64, event: RunEvent) -> Record {
    Record { seq, at: format!("2026-03-01T10:00:{:02}.000Z", seq % 60), attempt: 1, event }
}
