//! A run as lines of text: for terminals without a screen and for scheduler logs.
//!
//! One line per reporting step, evaluation, checkpoint and message; the header states decisions and
//! costs, the last lines what to type next.

use std::path::Path;

use crate::plan::CostedStage;
use crate::record::{
    Activations, CheckpointInfo, Evaluation, History, LogLevel, Outcome, Progress, Record, RunEnd,
    RunEvent, RunHeader, Sample, StepMetrics, TaskScores, evaluated_tokens, log_text, loss_text,
    task_scores_text, whole_tokens,
};
use crate::report::Output;
use crate::text::format::{
    bytes, count, counted, duration, flops, learning_rate, loss, next_commands, norm, percent,
    rate, shell_word, small,
};
use crate::text::sanitize_line;

/// Writes a run as lines of text.
#[derive(Debug)]
pub struct Plain {
    out: Output,
    history: History,
    /// Activity and quarter shown last, so that a long preparation takes few lines.
    shown_progress: Option<(String, u64)>,
}

impl Plain {
    /// Writes to `out`.
    #[must_use]
    pub fn new(out: Output) -> Self {
        Self { out, history: History::default(), shown_progress: None }
    }

    /// Shows one more record.
    pub fn show(&mut self, record: &Record) {
        self.history.apply(record);
        match &record.event {
            RunEvent::RunStarted(header) => self.show_header(header),
            RunEvent::Progress(progress) => self.show_progress(progress),
            RunEvent::StepCompleted(metrics) => self.show_step(metrics),
            RunEvent::Evaluated(evaluation) => self.show_evaluation(evaluation),
            RunEvent::ActivationsMeasured(activations) => self.show_activations(activations),
            RunEvent::Sampled(sample) => self.show_sample(sample),
            RunEvent::TasksScored(scores) => self.show_scores(scores),
            RunEvent::CheckpointSaved(checkpoint) => self.show_checkpoint(checkpoint),
            RunEvent::RunFinished(end) => self.show_end(end),
            RunEvent::Note(note) => self.line(&format!("note: {}", note.message)),
            RunEvent::CommandAccepted(_) | RunEvent::TrialStepsTaken(_) => {}
            event => self.show_message(event),
        }
    }

    /// The only output function: whatever `text` contains, the terminal gets one sanitized line.
    fn line(&mut self, text: &str) {
        let mut line = sanitize_line(text.trim_end());
        line.push('\n');
        self.out.write_or_warn(&line);
    }

    fn entry(&mut self, label: &str, text: &str) {
        self.line(&format!("  {label:<10} {text}"));
    }

    fn show_header(&mut self, header: &RunHeader) {
        let plan = &header.plan;
        let threads = counted(header.threads, "thread");
        let start =
            header.resumed_from.map_or("starts".into(), |step| format!("resumes from step {step}"));
        self.line(&format!("{} {start} on {}, {threads}", header.name, header.device));
        self.entry("directory", &header.directory.display().to_string());
        let model = &plan.model;
        let parameters = count(plan.num_parameters);
        self.entry(
            "model",
            &format!(
                "{parameters} parameters: {}, hidden {}, vocabulary {}",
                counted(model.num_hidden_layers, "layer"),
                model.hidden_size,
                model.vocab_size
            ),
        );
        for (idx, stage) in plan.stages.iter().enumerate() {
            let (first, last, tokens) = (
                stage.first_step.saturating_add(1),
                stage.last_step(),
                count(stage.cost(stage.steps).tokens),
            );
            let sequences = format!(
                "{} x {} sequences of {} positions",
                stage.num_micro_batches, stage.micro_batch_size, stage.context_length
            );
            let steps = if first == last {
                format!("step {first}")
            } else {
                format!("steps {first} to {last}")
            };
            self.entry(
                &format!("stage {}", idx + 1),
                &format!("K = {}: {steps}, {tokens} tokens, {sequences}", stage.patch_size),
            );
        }
        let relative = format!(
            "{:.2} of the compute of token-level training on the same tokens",
            plan.relative_cost()
        );
        self.entry(
            "cost",
            &format!("{} tokens, {}, {relative}", count(plan.cost.tokens), flops(plan.cost.flops)),
        );
        self.entry(
            "memory",
            &format!(
                "{} for training state and activations, {} per checkpoint",
                bytes(plan.memory.state.saturating_add(plan.memory.activations)),
                bytes(plan.memory.checkpoint)
            ),
        );
        for decision in &header.decisions {
            self.entry("decided", &format!("{}: {}", decision.label, decision.text));
        }
        if let Some(rate) = plan.entropy_rate {
            self.entry(
                "floor",
                &format!("the text's true entropy rate is {} nats per token", loss(rate)),
            );
        }
        self.entry("attach", &format!("patchtui attach {}", shell_word(&header.name)));
    }

    fn show_progress(&mut self, progress: &Progress) {
        let quarter = progress.total.map_or(0, |total| percent(progress.done, total) / 25);
        let now = Some((progress.activity.clone(), quarter));
        if self.shown_progress != now {
            self.shown_progress = now;
            let part = progress.total.map_or(count(progress.done), |total| {
                format!("{} of {}", count(progress.done), count(total))
            });
            self.line(&format!("{}: {part}", progress.activity));
        }
    }

    fn show_step(&mut self, metrics: &StepMetrics) {
        let left =
            self.history.eta().map_or(String::new(), |(_, run)| format!("  ETA {}", duration(run)));
        let text = format!(
            "loss (K = {}) {}  grad {}  lr {}  {:>6} tok/s{left}",
            metrics.patch_size,
            loss(metrics.loss),
            norm(metrics.grad_norm),
            learning_rate(metrics.learning_rate),
            rate(metrics.tokens_per_second),
        );
        self.at("step", metrics.step, &text);
    }

    /// A line about a step: a label, e.g. `step` or `eval`, and the step, aligned, then `text`.
    fn at(&mut self, word: &str, step: u64, text: &str) {
        let steps = self.history.header.as_ref().map_or(0, |header| header.plan.steps);
        let width = steps.to_string().len();
        self.line(&format!("{word:<6} {step:>width$}/{steps}  {text}"));
    }

    fn show_evaluation(&mut self, evaluation: &Evaluation) {
        let (found, read, took) = (
            loss_text(&evaluation.measured()),
            evaluated_tokens(evaluation),
            duration(evaluation.seconds),
        );
        self.at("eval", evaluation.step, &format!("token loss {found}  ({read} in {took})"));
        if let Some(whole) = &evaluation.whole {
            let text = format!("token loss {}  ({})", loss_text(whole), whole_tokens(whole));
            self.at("final", evaluation.step, &text);
        }
    }

    fn show_activations(&mut self, activations: &Activations) {
        let rates: Vec<_> = activations.layers.iter().map(|layer| small(layer.rate)).collect();
        let (threshold, rates) = (activations.threshold, rates.join(" "));
        self.at(
            "active",
            activations.step,
            &format!("active neurons per layer (%, |x| > {threshold}): {rates}"),
        );
    }

    fn show_sample(&mut self, sample: &Sample) {
        self.at("sample", sample.step, &format!("{} | {}", sample.prompt, sample.text));
    }

    fn show_scores(&mut self, scores: &TaskScores) {
        self.at("tasks", scores.step, &task_scores_text(scores));
    }

    fn show_checkpoint(&mut self, checkpoint: &CheckpointInfo) {
        let kept = if checkpoint.permanent { ", permanent" } else { "" };
        let text = format!(
            "{} ({} in {}{kept})",
            checkpoint.path.display(),
            bytes(checkpoint.bytes),
            duration(checkpoint.seconds)
        );
        self.at("saved", checkpoint.step, &text);
    }

    fn show_message(&mut self, event: &RunEvent) {
        let Some((level, text)) = log_text(event) else { return };
        match level {
            LogLevel::Info => self.line(&text),
            LogLevel::Warning => self.line(&format!("warning: {text}")),
            LogLevel::Error => self.line(&format!("error: {text}")),
        }
    }

    fn show_end(&mut self, end: &RunEnd) {
        let header = self.history.header.take();
        let floor = header.as_ref().and_then(|header| header.plan.entropy_rate);
        for line in
            end_text(header.as_ref().map(|header| header.directory.as_path()), floor, end).lines()
        {
            self.line(line);
        }
    }
}

/// How a run ended and what to type next, as a few lines; `directory` is the run's, if it exists,
/// and `floor` the true entropy rate of its text, if known.
#[must_use]
pub fn end_text(directory: Option<&Path>, floor: Option<f64>, end: &RunEnd) -> String {
    let what = match end.outcome {
        Outcome::Completed => "completed",
        Outcome::Stopped => "stopped with a checkpoint",
        Outcome::Interrupted => "interrupted without a new checkpoint",
        Outcome::Failed => "failed",
    };
    let above = |nats: f64| {
        floor.map_or(String::new(), |floor| {
            format!(", {} nats above the entropy floor of {}", loss(nats - floor), loss(floor))
        })
    };
    let token_loss = match (&end.whole, end.token_loss) {
        (Some(whole), _) => format!(", token loss {}{}", loss_text(whole), above(whole.token_loss)),
        (None, Some(nats)) => format!(", token loss {}{}", loss(nats), above(nats)),
        (None, None) => String::new(),
    };
    let mut lines = vec![format!(
        "{what}: {}, {} tokens in {}{token_loss}",
        counted(end.step, "step"),
        count(end.tokens),
        duration(end.active_seconds)
    )];
    let mut entry = |label: &str, text: &str| lines.push(format!("  {label:<10} {text}"));
    if let Some(trouble) = &end.error {
        entry("error", &trouble.message);
        if let Some(hint) = &trouble.hint {
            entry("hint", hint);
        }
    }
    if let Some(directory) = directory {
        let run = shell_word(&directory.to_string_lossy());
        entry("view", &format!("patchtui view {run}"));
        if end.outcome == Outcome::Completed {
            for (label, command) in next_commands(&run) {
                entry(label, &command);
            }
        }
        // The run's own hint takes precedence: resuming may be wrong.
        let has_hint = end.error.as_ref().is_some_and(|trouble| trouble.hint.is_some());
        if end.outcome != Outcome::Completed && !has_hint {
            entry("resume", &format!("patchtui resume {run}"));
        }
    }
    lines.into_iter().map(|line| sanitize_line(&line) + "\n").collect()
}
