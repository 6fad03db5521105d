//! `patchtui runs`: what runs there are, from any folder.

use jiff::Timestamp;

use crate::commands::Runs;
use crate::report::{print, runs_table};
use crate::run::{RunState, RunSummary};

/// All runs with their state, those that are alive first, then newest first; runs that cannot be read are left out.
#[must_use]
pub fn summaries(runs: &Runs) -> Vec<RunSummary> {
    let mut summaries: Vec<_> = runs.index.all(&runs.folder).iter().filter_map(|run| RunSummary::read(run).ok()).collect();
    summaries.sort_by_key(|summary| !matches!(summary.state, RunState::Alive | RunState::Paused));
    summaries
}

/// Prints all runs, as a table or as one JSON array.
pub fn list(runs: &Runs, json: bool) {
    let summaries = summaries(runs);
    if json {
        print(&(serde_json::json!(summaries).to_string() + "\n"));
    } else {
        print(&runs_table(&summaries, Timestamp::now()));
    }
}
