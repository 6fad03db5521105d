//! One row of a list of runs, read without the long files.

use std::io;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::config::PatchSize;
use crate::record::{
    ControlState, History, LineFile, Liveness, Outcome, RunDirectory, RunEvent, last_activity,
    last_record, read_events, read_kinds,
};

/// Whether a run is running, and if not, how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// An engine is running.
    Alive,
    /// An engine is running, but the run is paused.
    Paused,
    /// All steps were completed.
    Completed,
    /// Stopped early on request, with a valid checkpoint.
    Stopped,
    /// Interrupted without a checkpoint.
    Interrupted,
    /// An error ended it.
    Failed,
    /// The engine ended without reporting why: killed, out of memory, power cut.
    Crashed,
    /// Its end was not reported, and its lock does not tell whether an engine is running.
    Unknown,
    /// No engine has reported anything yet.
    New,
}

/// One line of a list of runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunSummary {
    /// Name of the run.
    pub name: String,
    /// Directory of the run.
    #[serde(rename = "path", serialize_with = "path_text")]
    pub directory: RunDirectory,
    /// Running, or how it ended.
    pub state: RunState,
    /// Completed updates.
    pub step: u64,
    /// Updates of the whole run, once a plan is known.
    pub steps: Option<u64>,
    /// The current or last stage, once a plan is known.
    pub stage: Option<CurrentStage>,
    /// The token-level (K = 1) loss in nats per token: on the whole validation text if the run got
    /// to its end, else the newest one, of a step that no later attempt has undone.
    #[serde(with = "crate::record::number::option")]
    pub token_loss: Option<f64>,
    /// Its standard error over sequences, in nats per token.
    #[serde(with = "crate::record::number::option")]
    pub standard_error: Option<f64>,
    /// The same loss in bits per byte of text.
    #[serde(with = "crate::record::number::option")]
    pub bits_per_byte: Option<f64>,
    /// Whether it was measured on the whole validation text.
    pub on_whole_validation_text: bool,
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of the last activity, RFC 3339 in UTC.
    pub changed_at: Option<String>,
}

/// The stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CurrentStage {
    /// Number of the stage, counted from 1.
    pub number: usize,
    /// Number of stages in the plan.
    pub of: usize,
    /// Patch size (K).
    pub patch_size: PatchSize,
}

/// The contents of the files that stay short even in a long run: events and evaluations.
struct ShortFiles {
    /// Without the steps and evaluations that a later attempt has undone.
    history: History,
    /// The newest attempt that has loaded its model; 0 if there is none.
    started_attempt: u32,
}

impl ShortFiles {
    fn read(directory: &RunDirectory) -> io::Result<Self> {
        let mut found = Self { history: History::default(), started_attempt: 0 };
        read_kinds(directory, &[LineFile::Events, LineFile::Evals], |record| {
            if matches!(record.event, RunEvent::RunStarted(_)) {
                found.started_attempt = record.attempt;
            }
            found.history.apply(&record);
        })?;
        Ok(found)
    }
}

impl RunSummary {
    /// Reads the summary of the run in `directory`.
    pub fn read(directory: &RunDirectory) -> io::Result<Self> {
        let ShortFiles { history, started_attempt } = ShortFiles::read(directory)?;
        let resumed_from =
            history.header.as_ref().and_then(|header| header.resumed_from).unwrap_or(0);
        let step = match last_record(LineFile::Metrics, directory)
            .map(|record| (record.attempt, record.event))
        {
            Some((attempt, RunEvent::StepCompleted(metrics))) if attempt >= started_attempt => {
                metrics.step
            }
            // The newest attempt has not reported a step yet; what earlier attempts did beyond its
            // start is undone.
            _ => resumed_from,
        };
        let step = history.end.as_ref().map_or(step, |end| end.step.max(step));
        let loss = history.newest_loss();
        Ok(Self {
            name: directory.name(),
            state: state(directory, &history),
            step,
            stage: current_stage(&history, step),
            steps: history.header.as_ref().map(|header| header.plan.steps),
            token_loss: loss.map(|loss| loss.token_loss),
            standard_error: loss.and_then(|loss| loss.standard_error),
            bits_per_byte: loss.and_then(|loss| loss.bits_per_byte),
            on_whole_validation_text: history.whole_loss().is_some(),
            bytes: directory.size(),
            changed_at: changed_at(directory),
            directory: directory.clone(),
        })
    }
}

impl RunState {
    /// How the run in `directory` ended; for a caller that holds its lock.
    pub fn at_rest(directory: &RunDirectory) -> io::Result<Self> {
        Ok(Self::of_ended(&read_events(directory)?))
    }

    /// The state in words, readable after "the run is".
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Unknown => "running or crashed; its file system has no locks to tell which",
            Self::New => "not started",
        }
    }

    /// The state of a run whose lock gives no information.
    fn of_unknown(history: &History) -> Self {
        match Self::of_ended(history) {
            Self::Crashed => Self::Unknown,
            reported => reported,
        }
    }

    fn of_ended(history: &History) -> Self {
        match (&history.end, history.last_seq) {
            (Some(end), _) => match end.outcome {
                Outcome::Completed => Self::Completed,
                Outcome::Stopped => Self::Stopped,
                Outcome::Interrupted => Self::Interrupted,
                Outcome::Failed => Self::Failed,
            },
            (None, 0) => Self::New,
            (None, _) => Self::Crashed,
        }
    }
}

/// Time of the last activity in `directory`, RFC 3339 in UTC.
#[must_use]
pub fn changed_at(directory: &RunDirectory) -> Option<String> {
    last_activity(directory)
        .and_then(|time| Some(format!("{:.0}", Timestamp::try_from(time).ok()?)))
}

fn state(directory: &RunDirectory, history: &History) -> RunState {
    match Liveness::of(directory) {
        Liveness::Alive => {}
        Liveness::Gone => return RunState::of_ended(history),
        Liveness::Unknown => return RunState::of_unknown(history),
    }
    if history.control == ControlState::Paused { RunState::Paused } else { RunState::Alive }
}

fn current_stage(history: &History, step: u64) -> Option<CurrentStage> {
    let stages = &history.header.as_ref()?.plan.stages;
    let idx = history.header.as_ref()?.plan.stage_idx_after(step);
    stages.get(idx).map(|stage| CurrentStage {
        number: idx + 1,
        of: stages.len(),
        patch_size: stage.patch_size,
    })
}

fn path_text<S: Serializer>(directory: &RunDirectory, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&directory.path().to_string_lossy())
}
