//! `patchtui ctl`: the keyboard commands, for scripts.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::advice::Failure;
use crate::advice::{Advice, Audience};
use crate::cli::Verb;
use crate::commands::{Runs, sender_name};
use crate::control::{ControlError, Request, Status, request, request_without_waiting, status};
use crate::record::{CommandNote, ControlState, RunDirectory, RunState, RunSummary, control_word};
use crate::report::{print, status_text};
use crate::text::format::duration;
use crate::text::{sanitize, sanitize_line};

/// How long a script waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the command is completed.
    UntilDone,
    /// Until the run has accepted the command.
    UntilAccepted,
}

/// One call of `patchtui ctl`.
#[derive(Debug, Clone, Copy)]
pub struct CtlRequest<'a> {
    /// Name or path of the run.
    pub run: &'a str,
    /// Requested verb.
    pub verb: Verb,
    /// When to return.
    pub wait: Wait,
    /// Time limit of a command.
    pub limit: Duration,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// Sends a request to a run and prints the answer.
pub fn ctl(asked: CtlRequest<'_>, runs: &Runs) -> Result<(), Failure> {
    print(&answer(asked, runs)?)?;
    Ok(())
}

/// Sends a request to a run; the answer ends with a line feed.
pub fn answer(asked: CtlRequest<'_>, runs: &Runs) -> Result<String, Failure> {
    let CtlRequest { run, verb, wait, limit, json } = asked;
    let directory = runs.find(run)?;
    let sender = &sender_name("ctl");
    Ok(match verb {
        Verb::Send(command) => {
            let asked = Request { command, sender, limit };
            let note = match wait {
                Wait::UntilDone => request(&directory, asked)?,
                Wait::UntilAccepted => CommandNote {
                    message: format!("{command} accepted"),
                    ..request_without_waiting(&directory, asked)?
                },
            };
            if json {
                line(&note_json(&directory, &note))
            } else {
                sanitize_line(&note.message) + "\n"
            }
        }
        Verb::Status => {
            let status = status(&directory, sender)?;
            let files_error = |source| ControlError::Files { name: directory.name(), source };
            let summary = RunSummary::read(&directory).map_err(files_error)?;
            if json {
                line(&status_json(&summary, &status))
            } else {
                status_lines(&summary, &status)
            }
        }
    })
}

fn line(value: &Value) -> String {
    sanitize::json(&value.to_string()).into_owned() + "\n"
}

fn note_json(directory: &RunDirectory, note: &CommandNote) -> Value {
    json!({ "run": directory.name(), "command": note.command, "message": note.message, "step": note.step, "seconds": note.seconds, "bytes": note.bytes })
}

/// The status as text, starting with the problem if the engine does not answer.
fn status_lines(summary: &RunSummary, status: &Status) -> String {
    let Status { history, problem } = status;
    let Some(problem) = problem else { return status_text(summary, history, None) };
    let age = history
        .last_at
        .parse::<Timestamp>()
        .ok()
        .map(|at| Timestamp::now().duration_since(at).as_secs_f64().max(0.0));
    let age = age.map_or_else(String::new, |age| {
        format!("; the rest is from its files, last written {} ago", duration(age.round()))
    });
    status_text(summary, history, Some(&format!("{problem}{age}")))
        + &format!("{:<12} {}\n", "hint", sanitize_line(&problem.hint(Audience::Command)))
}

fn status_json(summary: &RunSummary, status: &Status) -> Value {
    let Status { history, problem } = status;
    let is_alive = matches!(summary.state, RunState::Alive | RunState::Paused);
    let control = if is_alive { history.control } else { ControlState::Finished };
    let is_current = problem.is_none();
    let eta = history.eta().filter(|_| summary.state == RunState::Alive && is_current);
    let mut value = json!(summary);
    value["responding"] = json!(is_alive.then_some(is_current));
    value["problem"] = json!(problem.as_ref().map(ToString::to_string));
    value["step"] = json!(history.step());
    value["control"] = json!(control_word(control));
    value["attempt"] = json!(history.attempt);
    value["last_step"] = json!(history.last_step);
    value["last_at"] = json!(history.last_at);
    value["last_evaluation"] = json!(history.evaluations.last());
    value["last_checkpoint"] = json!(history.checkpoints.last());
    value["tokens_per_second"] = json!(history.tokens_per_second().filter(|_| is_current));
    value["eta_seconds"] = json!(eta.map(|(_, run)| run));
    value["end"] = json!(history.end);
    value
}
