//! `patchtui ctl`: the verbs of the keyboard, for scripts.

use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::{CommandError, Runs, sender_name};
use crate::control::{ControlError, request, status};
use crate::report::{print, status_text};
use crate::run::{ControlState, History, RunCommand, RunState, RunSummary, control_word, sanitize_line};

/// What a script asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtlVerb {
    /// What the run is doing.
    Status,
    /// To do something.
    Tell(RunCommand),
}

/// One call of `patchtui ctl`.
#[derive(Debug, Clone, Copy)]
pub struct CtlRequest<'a> {
    /// Name or path of the run.
    pub run: &'a str,
    /// What is asked.
    pub verb: CtlVerb,
    /// How long a command may take.
    pub limit: Duration,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// Asks a run and prints the answer.
pub fn ctl(asked: CtlRequest<'_>, runs: &Runs) -> Result<(), CommandError> {
    print(&answer(asked, runs)?);
    Ok(())
}

/// Asks a run; the answer ends with a line feed.
pub fn answer(asked: CtlRequest<'_>, runs: &Runs) -> Result<String, CommandError> {
    let CtlRequest { run, verb, limit, json } = asked;
    let directory = runs.index.find(run, &runs.folder)?;
    let sender = sender_name("ctl");
    Ok(match verb {
        CtlVerb::Tell(command) => {
            let message = request(&directory, command, &sender, limit)?;
            if json { line(&json!({ "run": directory.name(), "command": command, "message": message })) } else { sanitize_line(&message) + "\n" }
        }
        CtlVerb::Status => {
            let history = status(&directory, &sender)?;
            let files_error = |source| ControlError::Files { name: directory.name(), source };
            let summary = RunSummary::read(&directory).map_err(files_error)?;
            if json { line(&status_json(&summary, &history)) } else { status_text(&summary, &history) }
        }
    })
}

fn line(value: &Value) -> String {
    value.to_string() + "\n"
}

fn status_json(summary: &RunSummary, history: &History) -> Value {
    let control = if matches!(summary.state, RunState::Alive | RunState::Paused) { history.control } else { ControlState::Finished };
    let eta = history.eta().filter(|_| summary.state == RunState::Alive);
    let mut value = json!(summary);
    value["step"] = json!(history.step());
    value["control"] = json!(control_word(control));
    value["attempt"] = json!(history.attempt);
    value["last_step"] = json!(history.last_step);
    value["last_evaluation"] = json!(history.evaluations.last());
    value["last_checkpoint"] = json!(history.checkpoints.last());
    value["tokens_per_second"] = json!(history.tokens_per_second());
    value["eta_seconds"] = json!(eta.map(|(_, run)| run));
    value["end"] = json!(history.end);
    value
}
