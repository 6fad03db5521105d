//! Runs as a table, one run as a few lines.

use std::fmt::Write;

use jiff::Timestamp;

use crate::record::{
    History, RunState, RunSummary, control_word, evaluated_tokens, loss_text, whole_tokens,
};
use crate::text::format::{bytes, count, duration, loss, loss_with_error, ordinal, rate};
use crate::text::sanitize_line;

/// The runs as a table for people; ages are relative to `now`.
#[must_use]
pub fn runs_table(runs: &[RunSummary], now: Timestamp) -> String {
    if runs.is_empty() {
        return "there are no runs yet; start one with: patchtui run demo\n".into();
    }
    let head = ["NAME", "STATE", "STEP", "TOKEN LOSS", "BITS/BYTE", "SIZE", "CHANGED", "PATH"]
        .map(str::to_owned);
    let rows: Vec<_> = std::iter::once(head).chain(runs.iter().map(|run| row(run, now))).collect();
    aligned(&rows)
}

/// Rows as lines with aligned columns.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    in_columns(
        rows,
        std::array::from_fn(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0)),
    )
}

/// Columns that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Rows as lines with aligned columns of at least these widths.
pub(super) fn in_columns<const N: usize>(rows: &[[String; N]], widths: [usize; N]) -> String {
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, column) in row.iter().zip(widths) {
            let padding = column.saturating_sub(width(cell));
            line += cell;
            line += &" ".repeat(padding + 2);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn row(run: &RunSummary, now: Timestamp) -> [String; 8] {
    [
        sanitize_line(&run.name),
        state_word(run.state).into(),
        run.steps.map_or_else(|| run.step.to_string(), |steps| format!("{}/{steps}", run.step)),
        run.token_loss.map_or_else(|| "-".into(), |nats| loss_with_error(nats, run.standard_error)),
        run.bits_per_byte.map_or_else(|| "-".into(), loss),
        bytes(run.bytes),
        age(run.changed_at.as_deref(), now),
        sanitize_line(&run.directory.path().to_string_lossy()),
    ]
}

/// How long ago `at` was, as text; `-` if it is no time.
pub(super) fn age(at: Option<&str>, now: Timestamp) -> String {
    at.and_then(|at| at.parse::<Timestamp>().ok()).map_or_else(
        || "-".into(),
        |at| {
            let seconds = now.duration_since(at).as_secs_f64();
            format!("{} ago", duration(seconds.max(0.0).round()))
        },
    )
}

fn state_word(state: RunState) -> &'static str {
    match state {
        RunState::Alive => "running",
        RunState::Paused => "paused",
        RunState::Completed => "completed",
        RunState::Stopped => "stopped",
        RunState::Interrupted => "interrupted",
        RunState::Failed => "failed",
        RunState::Crashed => "crashed",
        RunState::Unknown => "unknown",
        RunState::New => "not started",
    }
}

/// What was measured in training and in evaluations.
fn measured_entries(history: &History, entry: &mut dyn FnMut(&str, String)) {
    if let Some(last) = &history.last_step {
        entry("stage", format!("{}, K = {}", ordinal(last.stage), last.patch_size));
        entry("tokens", count(last.tokens));
        entry("loss", format!("{} (K = {})", loss(last.loss), last.patch_size));
    }
    if let Some(evaluation) = history.evaluations.last() {
        entry(
            "token loss",
            format!(
                "{} at step {} ({})",
                loss_text(&evaluation.measured()),
                evaluation.step,
                evaluated_tokens(evaluation)
            ),
        );
    }
    if let Some(whole) = history.whole_loss() {
        entry("final loss", format!("{} ({})", loss_text(&whole), whole_tokens(&whole)));
    }
}

/// One run as a few lines for people; with the `problem` if the engine did not answer and its files
/// were read instead.
#[must_use]
pub fn status_text(summary: &RunSummary, history: &History, problem: Option<&str>) -> String {
    let mut text = String::new();
    let mut entry = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12} {}", sanitize_line(&value));
    };
    entry("run", format!("{} ({})", summary.name, summary.directory.path().display()));
    let doing = if summary.state == RunState::Alive {
        control_word(history.control).to_owned()
    } else {
        state_word(summary.state).into()
    };
    match problem {
        None => entry("state", doing),
        Some(problem) => {
            entry("state", problem.to_owned());
            entry("last known", doing);
        }
    }
    if let Some(progress) = &history.progress {
        entry(
            "working on",
            progress.total.map_or_else(
                || progress.activity.clone(),
                |total| format!("{}: {} of {total}", progress.activity, progress.done),
            ),
        );
    }
    entry(
        "step",
        summary.steps.map_or_else(
            || history.step().to_string(),
            |steps| format!("{} of {steps}", history.step()),
        ),
    );
    measured_entries(history, &mut entry);
    // The last reported speed of an engine that no longer answers says nothing about the present.
    if let (None, Some(speed)) = (problem, history.tokens_per_second()) {
        entry("speed", format!("{} tok/s", rate(speed)));
    }
    if let (None, RunState::Alive, Some((stage, run))) = (problem, summary.state, history.eta()) {
        entry(
            "time left",
            format!("{} of this stage, {} of the run", duration(stage), duration(run)),
        );
    }
    if let Some(checkpoint) = history.checkpoints.last() {
        entry("checkpoint", format!("newest at step {}", checkpoint.step));
    }
    if let Some(trouble) = history.end.as_ref().and_then(|end| end.error.as_ref()) {
        entry("error", trouble.message.clone());
    }
    for sentence in &history.altered {
        entry("altered", sentence.clone());
    }
    text
}
