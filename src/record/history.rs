//! The events of a run so far, folded into the state that a screen shows.
//!
//! The engine's control server keeps one and sends it to a client that attaches; the client
//! continues with the same [`History::apply`]. For a run that is not running, it is built from the
//! files. Every screen is a function of this.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::plan::CostedStage;
use crate::record::{
    Activations, CheckpointInfo, CommandNote, ControlState, Evaluation, MeasuredLoss, Outcome,
    Progress, Record, RunEnd, RunEvent, RunHeader, Sample, Series, StageLedger, StepMetrics,
    StepPoint, TaskScore, TaskScores,
};
use crate::text::format;

/// Log lines kept for the screen; the files keep them all.
const LOG_LINES: usize = 500;
/// Samples kept for the screen.
const SAMPLES: usize = 60;
/// Steps over which throughput is averaged.
const RECENT_STEPS: usize = 20;

/// The state of a run after its events so far; also the snapshot that a client gets, where missing
/// fields are empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Sequence number of the last applied record.
    pub last_seq: u64,
    /// Time of the last record.
    pub last_at: String,
    /// Number of this attempt.
    pub attempt: u32,
    /// Plan, device, decisions.
    pub header: Option<Box<RunHeader>>,
    /// Running, paused, stopping.
    pub control: ControlState,
    /// Long task in progress before or between steps.
    pub progress: Option<Progress>,
    /// Loss of the stage's own objective, in step order; superseded steps of earlier attempts are
    /// dropped.
    pub steps: Series,
    /// The newest metrics record.
    pub last_step: Option<StepMetrics>,
    /// The newest metrics records of this attempt, for throughput and ETA.
    pub recent: VecDeque<StepMetrics>,
    /// The main curve: token loss (K = 1).
    pub evaluations: Vec<Evaluation>,
    /// Activation rates over the run.
    pub activations: Vec<Activations>,
    /// Samples, newest last.
    pub samples: VecDeque<Sample>,
    /// Scores of evaluation tasks.
    pub task_scores: Vec<TaskScores>,
    /// Checkpoints saved.
    pub checkpoints: Vec<CheckpointInfo>,
    /// Stages completed.
    pub ledgers: Vec<StageLedger>,
    /// Tokens per second of each stage, from trial steps or measured since, this attempt only.
    #[serde(with = "crate::record::number::list")]
    pub stage_speed: Vec<f64>,
    /// Log lines, newest last.
    pub log: VecDeque<LogLine>,
    /// Files that are not what the run wrote, one sentence each; filled by those who read an ended
    /// run from its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub altered: Vec<String>,
    /// How the run ended, if it has.
    pub end: Option<RunEnd>,
}

/// A line for the log pane, raw: it must be sanitized before it is shown on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Time, RFC 3339 in UTC.
    pub at: String,
    /// Severity.
    pub level: LogLevel,
    /// What happened.
    pub text: String,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Normal progress.
    Info,
    /// Something the user should check.
    Warning,
    /// Something failed.
    Error,
}

impl History {
    /// Applies one more record; ignores records that were applied before.
    pub fn apply(&mut self, record: &Record) {
        if record.seq <= self.last_seq {
            return;
        }
        self.last_seq = record.seq;
        self.last_at.clone_from(&record.at);
        if record.attempt != self.attempt {
            self.begin_attempt(record.attempt);
        }
        if let Some((level, text)) = log_text(&record.event) {
            self.log.push_back(LogLine { at: record.at.clone(), level, text });
            if self.log.len() > LOG_LINES {
                self.log.pop_front();
            }
        }
        self.apply_event(&record.event);
    }

    /// Seconds until the end of the current stage and of the run, from speeds of this attempt only.
    #[must_use]
    pub fn eta(&self) -> Option<(f64, f64)> {
        let header = self.header.as_ref()?;
        let step = self.step();
        let current = header.plan.stage_idx_after(step);
        let mut seconds = (0.0, 0.0);
        for (idx, stage) in header.plan.stages.iter().enumerate().skip(current) {
            let speed = *self.stage_speed.get(idx)?;
            let left = stage
                .last_step()
                .saturating_sub(step.max(stage.first_step))
                .saturating_mul(stage.tokens_per_step);
            let stage_seconds = left as f64 / speed;
            if idx == current {
                seconds.0 = stage_seconds;
            }
            seconds.1 += stage_seconds;
        }
        Some(seconds)
    }

    /// Completed updates.
    #[must_use]
    pub fn step(&self) -> u64 {
        let resumed_from = self.header.as_ref().and_then(|header| header.resumed_from).unwrap_or(0);
        self.last_step.as_ref().map_or(resumed_from, |step| step.step)
    }

    /// The token-level loss on the whole validation text, if the run got to its end.
    #[must_use]
    pub fn whole_loss(&self) -> Option<MeasuredLoss> {
        self.end.as_ref().and_then(|end| end.whole).or_else(|| self.evaluations.last()?.whole)
    }

    /// The token-level loss to compare the run by: that on the whole validation text, else the
    /// newest one.
    #[must_use]
    pub fn newest_loss(&self) -> Option<MeasuredLoss> {
        self.whole_loss().or_else(|| self.evaluations.last().map(Evaluation::measured))
    }

    /// Tokens per second over the newest reporting steps of the current stage.
    #[must_use]
    pub fn tokens_per_second(&self) -> Option<f64> {
        let last = self.recent.back()?;
        let (mut tokens, mut seconds) = (0.0, 0.0);
        for step in self.recent.iter().rev().take_while(|step| step.stage == last.stage) {
            tokens += step.tokens_per_second * step.step_seconds;
            seconds += step.step_seconds;
        }
        (seconds > 0.0).then_some(tokens / seconds)
    }

    /// A copy for the wire: at most about `points` points of the objective, with first, last,
    /// lowest, highest and the gaps of each piece.
    #[must_use]
    pub fn thinned(&self, points: usize) -> Self {
        let mut copy = self.clone();
        copy.steps = self.steps.thinned(points);
        copy
    }

    /// Resets what belongs to one attempt only: speed, state, end.
    pub(crate) fn begin_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
        self.recent.clear();
        self.stage_speed.clear();
        self.end = None;
        self.control = ControlState::Starting;
    }

    /// Drops what earlier attempts did beyond the step that this one resumes from, since it will be
    /// repeated.
    fn rewind(&mut self, resumed_from: Option<u64>) {
        // A run that starts over measures its untrained model again; one that resumes from step 0
        // does not.
        let is_kept = |of: u64| resumed_from.is_some_and(|step| of <= step);
        self.steps.retain(is_kept);
        self.evaluations.retain(|evaluation| is_kept(evaluation.step));
        self.activations.retain(|activations| is_kept(activations.step));
        self.samples.retain(|sample| is_kept(sample.step));
        self.task_scores.retain(|scores| is_kept(scores.step));
        self.checkpoints.retain(|checkpoint| is_kept(checkpoint.step));
        self.ledgers.retain(|ledger| is_kept(ledger.step));
        if self.last_step.as_ref().is_some_and(|last| !is_kept(last.step)) {
            self.last_step = None;
        }
    }

    fn apply_event(&mut self, event: &RunEvent) {
        match event {
            RunEvent::RunStarted(header) => {
                self.rewind(header.resumed_from);
                self.header = Some(header.clone());
                self.progress = None;
            }
            RunEvent::Progress(progress) => self.progress = Some(progress.clone()),
            RunEvent::TrialStepsTaken(trial) => {
                self.stage_speed.clone_from(&trial.tokens_per_second);
            }
            RunEvent::StepCompleted(metrics) => self.apply_step(metrics),
            RunEvent::Evaluated(evaluation) => {
                self.progress = None;
                push_newest(&mut self.evaluations, evaluation, |evaluation| evaluation.step);
            }
            RunEvent::ActivationsMeasured(activations) => {
                push_newest(&mut self.activations, activations, |activations| activations.step);
            }
            RunEvent::Sampled(sample) => {
                self.progress = None;
                self.apply_sample(sample);
            }
            RunEvent::CheckpointSaved(checkpoint) => {
                push_newest(&mut self.checkpoints, checkpoint, |checkpoint| checkpoint.step);
            }
            RunEvent::ControlChanged(change) => self.control = change.state,
            RunEvent::StageCompleted(ledger) => {
                push_newest(&mut self.ledgers, ledger, |ledger| ledger.step);
            }
            RunEvent::RunFinished(end) => {
                self.control = ControlState::Finished;
                self.progress = None;
                self.end = Some(end.clone());
            }
            RunEvent::StageStarted(_)
            | RunEvent::CheckpointFailed(_)
            | RunEvent::CommandAccepted(_)
            | RunEvent::CommandDone(_)
            | RunEvent::CommandFailed(_)
            | RunEvent::Warning(_)
            | RunEvent::Note(_)
            | RunEvent::Unknown => {}
            RunEvent::TasksScored(scores) => {
                self.progress = None;
                push_newest(&mut self.task_scores, scores, |scores| scores.step);
            }
        }
    }

    /// Appends, replacing a sample of the same step and prompt: a resumed run repeats what a stop
    /// interrupted.
    fn apply_sample(&mut self, sample: &Sample) {
        let mut same_step =
            self.samples.iter_mut().rev().take_while(|known| known.step == sample.step);
        match same_step.find(|known| known.prompt == sample.prompt) {
            Some(known) => known.clone_from(sample),
            None => self.samples.push_back(sample.clone()),
        }
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    fn apply_step(&mut self, metrics: &StepMetrics) {
        self.progress = None;
        self.steps.push(StepPoint {
            stage: metrics.stage,
            step: metrics.step,
            tokens: metrics.tokens,
            loss: metrics.loss,
        });
        self.recent.push_back(metrics.clone());
        if self.recent.len() > RECENT_STEPS {
            self.recent.pop_front();
        }
        self.last_step = Some(metrics.clone());
        if let (Some(speed), Some(slot)) =
            (self.tokens_per_second(), self.stage_speed.get_mut(metrics.stage))
        {
            *slot = speed;
        }
    }
}

/// Appends, replacing an entry of the same step: a resumed run repeats measurements that a stop
/// interrupted.
fn push_newest<T: Clone>(known: &mut Vec<T>, newest: &T, step: impl Fn(&T) -> u64) {
    if known.last().is_some_and(|last| step(last) == step(newest)) {
        known.pop();
    }
    known.push(newest.clone());
}

/// The log line of an event, if it has one; raw.
#[must_use]
pub fn log_text(event: &RunEvent) -> Option<(LogLevel, String)> {
    use LogLevel::{Error, Info};
    Some(match event {
        RunEvent::RunStarted(header) => match header.resumed_from {
            Some(step) => {
                (Info, format!("{} resumes from step {step} on {}", header.name, header.device))
            }
            None => (Info, format!("{} starts on {}", header.name, header.device)),
        },
        RunEvent::StageStarted(start) => {
            let state = if start.optimizer_reset { "reset" } else { "kept" };
            (
                Info,
                format!(
                    "stage {} begins at step {}: K = {}, optimizer state {state}",
                    format::ordinal(start.stage),
                    start.step,
                    start.patch_size
                ),
            )
        }
        RunEvent::StageCompleted(ledger) => (
            Info,
            format!(
                "stage {} completed: {} tokens in {}, {} tok/s",
                format::ordinal(ledger.stage),
                format::count(ledger.tokens),
                format::duration(ledger.active_seconds),
                format::rate(ledger.tokens_per_second)
            ),
        ),
        RunEvent::CheckpointSaved(info) => {
            let kept = if info.permanent { ", permanent" } else { "" };
            (
                Info,
                format!(
                    "checkpoint at step {} saved in {}{kept}",
                    info.step,
                    format::duration(info.seconds)
                ),
            )
        }
        RunEvent::CheckpointFailed(failure) => (
            Error,
            format!(
                "checkpoint at step {} failed: {}; training continues",
                failure.step, failure.error
            ),
        ),
        RunEvent::ControlChanged(change) => {
            (Info, format!("{} at step {}", control_word(change.state), change.step))
        }
        RunEvent::CommandAccepted(note)
        | RunEvent::CommandDone(note)
        | RunEvent::CommandFailed(note) => command_text(event, note),
        RunEvent::Warning(warning) => (LogLevel::Warning, warning.message.clone()),
        RunEvent::Note(note) => (Info, note.message.clone()),
        RunEvent::RunFinished(end) => end_text(end),
        RunEvent::TasksScored(scores) => {
            (Info, format!("tasks at step {}: {}", scores.step, task_scores_text(scores)))
        }
        RunEvent::Progress(_)
        | RunEvent::TrialStepsTaken(_)
        | RunEvent::StepCompleted(_)
        | RunEvent::Evaluated(_)
        | RunEvent::ActivationsMeasured(_)
        | RunEvent::Sampled(_)
        | RunEvent::Unknown => return None,
    })
}

fn end_text(end: &RunEnd) -> (LogLevel, String) {
    use LogLevel::{Error, Info};
    match (&end.error, end.outcome) {
        (Some(trouble), _) => {
            (Error, format!("run failed at step {}: {}", end.step, trouble.message))
        }
        (None, Outcome::Completed) => (
            Info,
            format!(
                "run completed: {}, {} tokens",
                format::counted(end.step, "step"),
                format::count(end.tokens)
            ),
        ),
        (None, Outcome::Stopped) => {
            (Info, format!("stopped at step {} with a checkpoint", end.step))
        }
        (None, _) => {
            (LogLevel::Warning, format!("interrupted at step {} without a checkpoint", end.step))
        }
    }
}

fn command_text(event: &RunEvent, note: &CommandNote) -> (LogLevel, String) {
    use LogLevel::{Error, Info};
    let requests = note.requests();
    match event {
        RunEvent::CommandAccepted(_) => {
            let from = if note.also.is_empty() { "requested by" } else { "from" };
            (Info, format!("{requests} {from} {}", note.from))
        }
        RunEvent::CommandFailed(_) => {
            let result = if note.also.is_empty() { "failed" } else { "rejected" };
            (Error, format!("{requests} {result}: {}", note.message))
        }
        _ => (Info, format!("{requests} done: {}", note.message)),
    }
}

/// Scores in one line: accuracies in percent, other numbers as they are.
#[must_use]
pub fn task_scores_text(scores: &TaskScores) -> String {
    let text = |score: &TaskScore| match score.metric.as_str() {
        "acc" | "acc_norm" => {
            format!("{} {} {:.1} %", score.task, score.metric, 100.0 * score.value)
        }
        metric => format!("{} {metric} {}", score.task, format::small(score.value)),
    };
    let parts: Vec<_> = scores.scores.iter().map(text).collect();
    format!("{} ({})", parts.join(", "), format::duration(scores.seconds))
}

/// The state in one word, for log lines and status bars.
#[must_use]
pub fn control_word(state: ControlState) -> &'static str {
    match state {
        ControlState::Starting => "starting",
        ControlState::Running => "running",
        ControlState::Pausing => "pausing",
        ControlState::Paused => "paused",
        ControlState::Stopping => "stopping",
        ControlState::Finished => "ended",
    }
}
