//! Which configuration changes a resume refuses, because they would turn the run into a different
//! one.
//!
//! Compares keys and values only, with those that the checkpoint recorded. Data files and
//! tokenizers may move: `engine/train/facts.rs` compares their content by fingerprint. Initial
//! weights are not needed any more.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use crate::config::keys::{Change, Found, Key, find};
use crate::config::{RunConfig, toml_line};

/// A key whose new value is refused on resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityChange {
    /// Full path: `training.tokens`, `stages[0].share`.
    pub key: String,
    /// Value in the existing run, as TOML text, or "not set".
    pub old: String,
    /// Requested value, as TOML text, or "not set".
    pub new: String,
}

/// Values of a configuration as TOML text, by full path.
pub type RecordedConfig = BTreeMap<String, String>;

/// The changes from `old` to `new` that a resume refuses, in the order of the keys.
#[must_use]
pub fn identity_changes(old: &RecordedConfig, new: &RecordedConfig) -> Vec<IdentityChange> {
    differences(old, new)
        .filter(|(key, _)| key.change == Change::Refused)
        .map(|(_, change)| change)
        .collect()
}

/// Keys whose change a resume accepts although later numbers may differ in the last bits.
#[must_use]
pub fn inexact_changes(old: &RecordedConfig, new: &RecordedConfig) -> Vec<String> {
    differences(old, new)
        .filter(|(key, _)| key.change == Change::Inexact)
        .map(|(_, change)| change.key)
        .collect()
}

/// The keys of this version whose values differ, in order.
fn differences<'a>(
    old: &'a RecordedConfig,
    new: &'a RecordedConfig,
) -> impl Iterator<Item = (&'static Key, IdentityChange)> + use<'a> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    paths.into_iter().filter_map(|path| {
        let Found::Key(key) = find(path) else { return None };
        let (before, after) = (old.get(path), new.get(path));
        // The version that wrote `old` may not have had the key; it behaved like the default.
        let is_new_key = || {
            before.is_none()
                && after.is_some_and(|after| {
                    key.default.is_some_and(|default| is_same_value(after, default))
                })
        };
        let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
        (before != after && !is_new_key()).then(|| {
            (key, IdentityChange { key: path.clone(), old: show(before), new: show(after) })
        })
    })
}

/// Whether two TOML texts are the same value: numbers can be written in several ways.
fn is_same_value(a: &str, b: &str) -> bool {
    let value = |text: &str| format!("value = {text}").parse::<toml::Table>().ok();
    value(a) == value(b)
}

/// All values of `config`.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn config_texts(config: &RunConfig) -> RecordedConfig {
    flat_values(config).into_iter().map(|(path, value)| (path, toml_line(&value))).collect()
}

/// What a checkpoint records of `config`.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn recorded_config(config: &RunConfig) -> RecordedConfig {
    config_texts(config).into_iter().filter(|(path, _)| is_recorded(path)).collect()
}

/// The configuration that a checkpoint `recorded`, completed from the run's config.toml, which may
/// have been edited.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn trained_config(recorded: RecordedConfig, file: &RunConfig) -> RecordedConfig {
    let unrecorded = config_texts(file).into_iter().filter(|(path, _)| !is_recorded(path));
    recorded.into_iter().chain(unrecorded).collect()
}

fn is_recorded(path: &str) -> bool {
    matches!(find(path), Found::Key(key) if key.is_recorded)
}

/// Every value that is set in `config`, by full path.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn flat_values(config: &RunConfig) -> BTreeMap<String, Value> {
    let root = toml::Table::try_from(config)
        .unwrap_or_else(|error| unreachable!("a loaded configuration can be written: {error}"));
    let mut values = BTreeMap::new();
    for (section, value) in root {
        match value {
            Value::Table(table) => values.extend(
                table.into_iter().map(|(word, value)| (format!("{section}.{word}"), value)),
            ),
            Value::Array(stages) => {
                for (idx, stage) in stages.into_iter().enumerate() {
                    let Value::Table(table) = stage else { continue };
                    values.extend(
                        table
                            .into_iter()
                            .map(|(word, value)| (format!("{section}[{idx}].{word}"), value)),
                    );
                }
            }
            value => {
                values.insert(section, value);
            }
        }
    }
    values
}
