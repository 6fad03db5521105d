//! Which configuration changes are refused on resume, because they would turn the run into a different one.
//!
//! Compares keys and values only, with those that a checkpoint recorded. Data files, tokenizers and weights may move: their
//! content is compared by fingerprint in `engine/train/start.rs`.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use crate::config::keys::{Found, Key, find};
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

/// Values of a configuration as TOML text, by their full paths.
pub type RecordedConfig = BTreeMap<String, String>;

/// What a checkpoint does not record: the name and the device that the engine resolves, and files whose content its
/// fingerprints cover, and which may move.
const NOT_RECORDED: [&str; 5] = ["name", "device", "data.tokenizer", "model.init_from", "training.fork_from"];

/// The changes from `old` to `new` that a resume refuses, in the order of their keys.
#[must_use]
pub fn identity_changes(old: &RecordedConfig, new: &RecordedConfig) -> Vec<IdentityChange> {
    differences(old, new).filter(|(key, _)| key.is_identity).map(|(_, change)| change).collect()
}

/// The keys whose change a resume accepts although the numbers may differ in the last bits from then on.
#[must_use]
pub fn inexact_changes(old: &RecordedConfig, new: &RecordedConfig) -> Vec<String> {
    differences(old, new).filter(|(key, _)| key.is_inexact()).map(|(_, change)| change.key).collect()
}

/// The keys of this version whose values differ, in their order.
fn differences<'a>(old: &'a RecordedConfig, new: &'a RecordedConfig) -> impl Iterator<Item = (&'static Key, IdentityChange)> + use<'a> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    paths.into_iter().filter_map(|path| {
        let Found::Key(key) = find(path) else { return None };
        let (before, after) = (old.get(path), new.get(path));
        // The version that wrote `old` may not have known the key, and behaved as its default says.
        let is_new_key = || before.is_none() && after.is_some_and(|after| key.default.is_some_and(|default| is_same_value(after, default)));
        let show = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
        (before != after && !is_new_key()).then(|| (key, IdentityChange { key: path.clone(), old: show(before), new: show(after) }))
    })
}

/// Whether two TOML texts are the same value: numbers can be written in several ways.
fn is_same_value(a: &str, b: &str) -> bool {
    let value = |text: &str| format!("value = {text}").parse::<toml::Table>().ok();
    value(a) == value(b)
}

/// Everything that `config` says.
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
    config_texts(config).into_iter().filter(|(path, _)| !NOT_RECORDED.contains(&path.as_str())).collect()
}

/// The configuration that a checkpoint `recorded`, completed from the run's own file, where values can be edited.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn trained_config(recorded: RecordedConfig, file: &RunConfig) -> RecordedConfig {
    let unrecorded = config_texts(file).into_iter().filter(|(path, _)| NOT_RECORDED.contains(&path.as_str()));
    recorded.into_iter().chain(unrecorded).collect()
}

/// Every value of `config` that is set, by its full path.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn flat_values(config: &RunConfig) -> BTreeMap<String, Value> {
    let root = toml::Table::try_from(config).unwrap_or_else(|error| unreachable!("a loaded configuration can be written: {error}"));
    let mut values = BTreeMap::new();
    for (section, value) in root {
        match value {
            Value::Table(table) => values.extend(table.into_iter().map(|(word, value)| (format!("{section}.{word}"), value))),
            Value::Array(stages) => {
                for (idx, stage) in stages.into_iter().enumerate() {
                    let Value::Table(table) = stage else { continue };
                    values.extend(table.into_iter().map(|(word, value)| (format!("{section}[{idx}].{word}"), value)));
                }
            }
            value => {
                values.insert(section, value);
            }
        }
    }
    values
}
