//! `patchtui attach`: finds a run and opens the link to its engine; what the screen shows from there is the screen's matter.

use crate::commands::{CommandError, Runs, sender_name};
use crate::control::{EngineLink, Feed, connect};
use crate::run::{History, RunDirectory};

/// A run that is being watched.
#[derive(Debug)]
pub struct Attached {
    /// The run.
    pub directory: RunDirectory,
    /// Everything so far.
    pub history: History,
    /// What comes: nothing more, if the engine is not alive.
    pub link: EngineLink,
    /// Whether the engine is alive and answers.
    pub is_live: bool,
}

/// The run that `run` means; without a name the newest that is alive, or else the newest.
pub fn find(run: Option<&str>, runs: &Runs) -> Result<RunDirectory, CommandError> {
    Ok(match run {
        Some(text) => runs.index.find(text, &runs.folder)?,
        None => runs.index.newest(&runs.folder)?,
    })
}

/// Attaches to `directory` through `face` and waits for its first word.
///
/// Must be called inside a tokio runtime. An engine that does not answer yet is tried again behind the link.
pub async fn attach(directory: RunDirectory, face: &str) -> Attached {
    let mut link = connect(directory.clone(), sender_name(face));
    let (history, is_live) = match link.feed.recv().await {
        Some(Feed::Snapshot(history)) => (*history, true),
        Some(Feed::Ended { history }) => (*history, false),
        Some(Feed::Record(_) | Feed::Lost { .. }) | None => (History::default(), false),
    };
    Attached { directory, history, link, is_live }
}
