//! `patchtui runs`: lists all runs, from any folder.

use jiff::Timestamp;

use crate::commands::Runs;
use crate::record::{RunDirectory, RunState, RunSummary, changed_at, is_alive};
use crate::report::{OutputError, print, print_json, runs_table};

/// All runs with their state: running runs first, then newest first; skips runs that cannot be
/// read.
#[must_use]
pub fn summaries(runs: &Runs) -> Vec<RunSummary> {
    summaries_since(&[], runs)
}

/// The same, but reuses entries of `known` for runs that have ended and are unchanged.
#[must_use]
pub fn summaries_since(known: &[RunSummary], runs: &Runs) -> Vec<RunSummary> {
    let mut summaries: Vec<_> =
        runs.index.all(&runs.folder).iter().filter_map(|run| read_if_changed(run, known)).collect();
    summaries.sort_by_key(|summary| !matches!(summary.state, RunState::Alive | RunState::Paused));
    summaries
}

fn read_if_changed(run: &RunDirectory, known: &[RunSummary]) -> Option<RunSummary> {
    let is_same = |old: &&RunSummary| {
        old.directory == *run
            && !matches!(old.state, RunState::Alive | RunState::Paused)
            && old.changed_at == changed_at(run)
    };
    match known.iter().find(is_same).filter(|_| !is_alive(run)) {
        Some(old) => Some(old.clone()),
        None => RunSummary::read(run).ok(),
    }
}

/// Prints all runs, as a table or as one JSON array.
///
/// # Errors
/// When standard output cannot be written.
pub fn list(runs: &Runs, json: bool) -> Result<(), OutputError> {
    let summaries = summaries(runs);
    if json {
        print_json(&serde_json::json!(summaries).to_string())
    } else {
        print(&runs_table(&summaries, Timestamp::now()))
    }
}
