//! The checkpoints of a run as a table.

use jiff::Timestamp;

use crate::record::ListedCheckpoint;
use crate::report::table::{age, aligned};
use crate::text::format::{bytes, grouped, loss, ordinal};
use crate::text::sanitize_line;

/// The checkpoints as a table for people; ages are relative to `now`.
#[must_use]
pub fn checkpoints_table(listed: &[ListedCheckpoint], now: Timestamp) -> String {
    let head = ["STEP", "STAGE", "K", "TOKEN LOSS", "KEPT AS", "SIZE", "SAVED", "STATE"]
        .map(str::to_owned);
    let rows: Vec<_> =
        std::iter::once(head).chain(listed.iter().map(|checkpoint| row(checkpoint, now))).collect();
    aligned(&rows)
}

fn row(checkpoint: &ListedCheckpoint, now: Timestamp) -> [String; 8] {
    let absent = || "-".to_owned();
    let manifest = checkpoint.manifest.as_ref();
    let kept: Vec<&str> = [(checkpoint.is_permanent(), "permanent"), (checkpoint.is_best, "best")]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| word)
        .collect();
    [
        grouped(checkpoint.step),
        manifest.map_or_else(absent, |manifest| ordinal(manifest.stage).to_string()),
        manifest.map_or_else(absent, |manifest| manifest.patch_size.to_string()),
        manifest.and_then(|manifest| manifest.token_loss).map_or_else(absent, loss),
        if kept.is_empty() { absent() } else { kept.join(", ") },
        bytes(checkpoint.bytes),
        age(manifest.map(|manifest| manifest.created_at.as_str()), now),
        checkpoint.problem.as_ref().map_or_else(
            || "valid".into(),
            |problem| sanitize_line(&format!("not valid: {problem}")),
        ),
    ]
}
