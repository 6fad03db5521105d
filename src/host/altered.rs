//! Files of a run that were modified externally.

use crate::config::{config_texts, identity_changes, trained_config};
use crate::host::run_config;
use crate::record::{Checkpoints, RunDirectory};

/// The files of `directory` that are not what the run wrote, as far as its newest checkpoint tells,
/// one sentence each: lines of metrics and events, and keys of config.toml.
#[must_use]
pub fn altered(directory: &RunDirectory) -> Vec<String> {
    let Some(checkpoint) = Checkpoints::new(directory, 0).newest_claimed() else {
        return Vec::new();
    };
    let manifest = checkpoint.manifest;
    let mut found = manifest.changed_lines(directory.path());
    // An older version did not record the configuration.
    if let (false, Ok(file)) = (manifest.config.is_empty(), run_config(directory)) {
        let changes =
            identity_changes(&trained_config(manifest.config, &file), &config_texts(&file));
        found.extend(changes.into_iter().map(|change| {
            format!(
                "config.toml was changed: {} is {}, but the run used {}",
                change.key, change.new, change.old
            )
        }));
    }
    found
}
