//! Events of a run: plain data, from the engine to every log, screen and script.
//!
//! `step` always counts completed updates, and `tokens` all tokens read by them. These types are
//! the format on disk and on the wire: a new field has a default, a new kind of event is a new
//! type, which older readers ignore, and nothing is renamed or removed. Start at [`RunEvent`].

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};

use serde::{Deserialize, Serialize};

use crate::advice::{Advice, Audience};
use crate::config::PatchSize;
use crate::record::{LineHashes, PlanOutline, RunCommand, number};
use crate::text::format::shell_word;

/// Version of the lines in a run directory and of the records on the socket.
pub const FORMAT_VERSION: u32 = 1;

/// An event with its position in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts all records of the run, over all attempts.
    pub seq: u64,
    /// When it happened, RFC 3339 in UTC.
    pub at: String,
    /// Number of this attempt, counted from 1.
    pub attempt: u32,
    /// What happened.
    pub event: RunEvent,
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// The engine has started: the plan is known, text is prepared and weights are loaded.
    RunStarted(Box<RunHeader>),
    /// Progress of a long task before or between steps.
    Progress(Progress),
    /// One trial step per stage was timed before training.
    #[serde(rename = "warmed")]
    TrialStepsTaken(TrialSteps),
    /// A stage begins.
    StageStarted(StageStart),
    /// A reporting step was completed.
    StepCompleted(StepMetrics),
    /// The token loss (K = 1) on the validation text was measured.
    Evaluated(Evaluation),
    /// Activations were measured.
    ActivationsMeasured(Activations),
    /// A sample was generated.
    Sampled(Sample),
    /// Evaluation tasks were scored.
    TasksScored(TaskScores),
    /// A checkpoint was saved.
    CheckpointSaved(CheckpointInfo),
    /// A checkpoint could not be written; the run continues and tries again.
    CheckpointFailed(CheckpointFailure),
    /// The run is now running, paused or stopping.
    ControlChanged(ControlChange),
    /// A command was received.
    CommandAccepted(CommandNote),
    /// A command was completed.
    CommandDone(CommandNote),
    /// A command failed.
    CommandFailed(CommandNote),
    /// A stage was completed.
    StageCompleted(StageLedger),
    /// A warning: something that the user should act on.
    Warning(Warning),
    /// A note. Programs that do not know this kind of event ignore it.
    Note(Note),
    /// The run ended.
    RunFinished(RunEnd),
    /// An event of a newer version, ignored.
    #[serde(other)]
    Unknown,
}

/// Facts known when a run starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Name of the run.
    pub name: String,
    /// Its directory, absolute.
    pub directory: PathBuf,
    /// Description of the device.
    pub device: String,
    /// CPU threads that compute.
    pub threads: usize,
    /// The step that this attempt resumes from, if it starts from a checkpoint.
    pub resumed_from: Option<u64>,
    /// Choices that paper and code leave open, as label and text.
    pub decisions: Vec<Decision>,
    /// Stages, steps, costs.
    pub plan: PlanOutline,
}

/// A choice of this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Topic, in a word or two.
    pub label: String,
    /// The choice, in one line.
    pub text: String,
}

/// Progress of a long task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The task, e.g. "reading text (bytes)".
    pub activity: String,
    /// Units done.
    pub done: u64,
    /// Total units, if known.
    pub total: Option<u64>,
}

/// Speed of each stage in its trial step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialSteps {
    /// Tokens per second of each stage, without the optimizer's update.
    #[serde(with = "number::list")]
    pub tokens_per_second: Vec<f64>,
}

/// A stage begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageStart {
    /// Stage, counted from 0.
    pub stage: usize,
    /// Patch size (K).
    pub patch_size: PatchSize,
    /// Completed steps.
    pub step: u64,
    /// Tokens read so far.
    pub tokens: u64,
    /// Whether the optimizer state is reset.
    pub optimizer_reset: bool,
}

/// One line of `metrics.jsonl`; the names are fixed by the contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Completed updates of the run.
    pub step: u64,
    /// Stage, counted from 0.
    pub stage: usize,
    /// Patch size (K).
    pub patch_size: PatchSize,
    /// Passes over the training text begun before this step's first sequence, counted from 0.
    pub epoch: u64,
    /// Tokens read so far.
    pub tokens: u64,
    /// Positions computed so far.
    pub positions: u64,
    /// Floating-point operations so far.
    #[serde(with = "number")]
    pub flops: f64,
    /// Nats per scored target of the stage's own objective, before the update.
    #[serde(with = "number")]
    pub loss: f64,
    /// Learning rate of the update.
    #[serde(with = "number")]
    pub learning_rate: f64,
    /// Global gradient norm (L2) before clipping.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// Mean duration of the steps since the last report, in seconds.
    #[serde(with = "number")]
    pub step_seconds: f64,
    /// Time in steps since the run began, over all attempts, in seconds.
    #[serde(with = "number")]
    pub active_seconds: f64,
    /// Tokens per second since the last report, without evaluation, checkpoint and pause.
    #[serde(with = "number")]
    pub tokens_per_second: f64,
    /// Time spent waiting for data since the last report, in seconds.
    #[serde(with = "number")]
    pub data_wait_seconds: f64,
}

/// Token loss (K = 1) on the validation text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Completed updates.
    pub step: u64,
    /// Stage, counted from 0.
    pub stage: usize,
    /// Patch size (K) of the stage; the evaluation itself is always at K = 1.
    pub patch_size: PatchSize,
    /// Tokens read so far.
    pub tokens: u64,
    /// Nats per token.
    #[serde(with = "number")]
    pub token_loss: f64,
    /// exp(`token_loss`).
    #[serde(with = "number")]
    pub perplexity: f64,
    /// Standard error of `token_loss` over sequences, in nats per token.
    #[serde(with = "number::option", default, skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// The loss in bits per byte of text, which models with other tokenizers can be compared by.
    #[serde(with = "number::option", default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// Tokens scored.
    pub targets: u64,
    /// Tokens that an evaluation of the whole validation text scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_targets: Option<u64>,
    /// At the end of a run: the loss on the whole validation text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<MeasuredLoss>,
    /// Duration in seconds.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// A token-level (K = 1) loss with what is needed to compare it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredLoss {
    /// Nats per token.
    #[serde(with = "number")]
    pub token_loss: f64,
    /// Standard error of `token_loss` over sequences, in nats per token; `None` for one sequence,
    /// and in old runs.
    #[serde(with = "number::option")]
    pub standard_error: Option<f64>,
    /// Bits per byte of text; `None` if the tokens stand for no text, and in old runs.
    #[serde(with = "number::option")]
    pub bits_per_byte: Option<f64>,
    /// Tokens scored.
    pub targets: u64,
}

/// Activation rates of all layers on the fixed probe batch, at the stage's K.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    /// Completed updates.
    pub step: u64,
    /// Stage, counted from 0.
    pub stage: usize,
    /// K of the probe.
    pub patch_size: PatchSize,
    /// Tokens read so far.
    pub tokens: u64,
    /// Threshold: a neuron is active if |x| is greater.
    #[serde(with = "number")]
    pub threshold: f64,
    /// Layers from first to last.
    pub layers: Vec<LayerActivation>,
}

/// Activations of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerActivation {
    /// Share of neurons with |x| above the threshold, in percent.
    #[serde(with = "number")]
    pub rate: f64,
    /// Mean |x|.
    #[serde(with = "number")]
    pub mean_abs: f64,
}

/// A greedily generated sample, raw: it must be sanitized before it is shown on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Completed updates.
    pub step: u64,
    /// Stage, counted from 0.
    pub stage: usize,
    /// Tokens read so far.
    pub tokens: u64,
    /// Text of the prompt.
    pub prompt: String,
    /// Generated text.
    pub text: String,
}

/// Scores of evaluation tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScores {
    /// Completed updates.
    pub step: u64,
    /// Stage, counted from 0.
    pub stage: usize,
    /// Tokens read so far.
    pub tokens: u64,
    /// Every metric of every task.
    pub scores: Vec<TaskScore>,
    /// Duration in seconds.
    #[serde(with = "number")]
    pub seconds: f64,
}

/// One metric of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskScore {
    /// Name of the task, e.g. `"piqa"`.
    pub task: String,
    /// Name of the metric as in lm-eval, e.g. `"acc_norm"`.
    pub metric: String,
    /// Value; accuracies are between 0 and 1.
    #[serde(with = "number")]
    pub value: f64,
    /// Documents evaluated.
    pub num_documents: u64,
}

/// A valid checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Completed updates.
    pub step: u64,
    /// Its directory, relative to the run directory.
    pub path: PathBuf,
    /// Size on disk in bytes.
    pub bytes: u64,
    /// Duration of the save in seconds.
    #[serde(with = "number")]
    pub seconds: f64,
    /// Whether pruning keeps it: stage ends and the run's end.
    pub permanent: bool,
}

/// A checkpoint that could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFailure {
    /// Completed updates.
    pub step: u64,
    /// What failed, in one line.
    pub error: String,
}

/// What a running run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlState {
    /// Text is being prepared or weights are being loaded.
    #[default]
    Starting,
    /// Training steps are running.
    Running,
    /// A pause was requested.
    Pausing,
    /// Paused until resumed.
    Paused,
    /// A stop was requested.
    Stopping,
    /// The run has ended.
    Finished,
}

/// The run is now running, paused or stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlChange {
    /// The new state.
    pub state: ControlState,
    /// Completed updates.
    pub step: u64,
}

/// A command and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandNote {
    /// Chosen by the sender, to match the answer.
    pub id: String,
    /// Requested command.
    pub command: RunCommand,
    /// Names of the senders.
    pub from: String,
    /// Completed updates.
    pub step: u64,
    /// What was done, or why it failed.
    pub message: String,
    /// Ids of equal commands that were executed together with this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Duration of evaluations, samples and saves, in seconds.
    #[serde(with = "number::option", default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Size on disk of the saved checkpoint, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Cost and duration of a completed stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageLedger {
    /// Stage, counted from 0.
    pub stage: usize,
    /// Patch size (K).
    pub patch_size: PatchSize,
    /// Completed updates of the run.
    pub step: u64,
    /// Updates of the stage.
    pub steps: u64,
    /// Tokens of the stage.
    pub tokens: u64,
    /// Positions of the stage.
    pub positions: u64,
    /// Floating-point operations of the stage.
    #[serde(with = "number")]
    pub flops: f64,
    /// Time in steps, over all attempts, in seconds.
    #[serde(with = "number")]
    pub active_seconds: f64,
    /// `tokens` / `active_seconds`.
    #[serde(with = "number")]
    pub tokens_per_second: f64,
}

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The warning in one line.
    pub message: String,
}

/// A note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The note in one line.
    pub message: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All steps were completed.
    Completed,
    /// Stopped early on request, with a valid checkpoint.
    Stopped,
    /// Interrupted without a checkpoint.
    Interrupted,
    /// An error ended the run.
    Failed,
}

/// The run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// Completed, stopped, interrupted or failed.
    pub outcome: Outcome,
    /// Completed updates.
    pub step: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Time in steps, over all attempts, in seconds.
    #[serde(with = "number")]
    pub active_seconds: f64,
    /// The last token loss (K = 1), in nats per token, if it was measured.
    #[serde(with = "number::option", default)]
    pub token_loss: Option<f64>,
    /// The loss on the whole validation text, if the run got to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<MeasuredLoss>,
    /// The error, if the run failed.
    pub error: Option<Trouble>,
}

/// An error and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What failed.
    pub message: String,
    /// What to type next.
    pub hint: Option<String>,
}

impl Trouble {
    /// `error`, as the run named `run` reports it.
    #[must_use]
    pub fn of(error: &(impl Error + Advice), run: &str) -> Self {
        let hint = error.hint(Audience::Run(&shell_word(run)));
        Self { message: error.to_string(), hint: Some(hint) }
    }
}

impl Evaluation {
    /// The loss on the tokens that every evaluation of the run reads.
    #[must_use]
    pub fn measured(&self) -> MeasuredLoss {
        let Self { token_loss, standard_error, bits_per_byte, targets, .. } = *self;
        MeasuredLoss { token_loss, standard_error, bits_per_byte, targets }
    }
}

impl CommandNote {
    /// Whether this is about the command `id`.
    #[must_use]
    pub fn is_about(&self, id: &str) -> bool {
        self.id == id || self.also.iter().any(|also| also == id)
    }

    /// The command, or with several equal ones their number: `pause`, `3 pause requests`.
    pub(crate) fn requests(&self) -> String {
        if self.also.is_empty() {
            self.command.to_string()
        } else {
            format!("{} {} requests", self.also.len() + 1, self.command)
        }
    }
}

impl Outcome {
    /// Exit code of the process.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Stopped => 75,
            Self::Interrupted => 130,
            Self::Failed => 1,
        }
    }
}

/// Sends the engine's events to logs and screens; [`EventSender::send`] never blocks and never
/// fails.
#[derive(Debug, Clone)]
pub struct EventSender(EventTarget);

/// Where events go.
#[derive(Debug, Clone)]
enum EventTarget {
    /// A listener; nothing is stored.
    Listener(Sender<RunEvent>),
    /// The store thread.
    Store(Sender<StoreMessage>),
}

/// A message to the store thread.
#[derive(Debug)]
pub(crate) enum StoreMessage {
    /// Store and publish an event.
    Event(Box<RunEvent>),
    /// Sync all earlier events to disk and reply with the result.
    Sync(Sender<io::Result<LineHashes>>),
}

impl EventSender {
    /// Sends to a listener that stores nothing.
    #[must_use]
    pub fn new(channel: Sender<RunEvent>) -> Self {
        Self(EventTarget::Listener(channel))
    }

    /// Sends to the store thread.
    pub(crate) fn to_store(channel: Sender<StoreMessage>) -> Self {
        Self(EventTarget::Store(channel))
    }

    /// Sends an event; does nothing if nobody listens any more, since a dead log must not stop a
    /// run.
    pub fn send(&self, event: RunEvent) {
        match &self.0 {
            EventTarget::Listener(channel) => drop(channel.send(event)),
            EventTarget::Store(channel) => drop(channel.send(StoreMessage::Event(Box::new(event)))),
        }
    }

    /// Sends a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(RunEvent::Warning(Warning { message: message.into() }));
    }

    /// Waits until the lines of all events sent so far are on disk.
    ///
    /// # Errors
    /// When the disk fails. A store that has ended is no error: losing the lines must not cost the
    /// weights as well.
    pub fn sync_lines(&self) -> io::Result<LineHashes> {
        let EventTarget::Store(channel) = &self.0 else { return Ok(LineHashes::new()) };
        let (reply, answer) = mpsc::channel();
        if channel.send(StoreMessage::Sync(reply)).is_err() {
            return Ok(LineHashes::new());
        }
        answer.recv().unwrap_or_else(|_| Ok(LineHashes::new()))
    }
}
