//! Which configuration changes are refused on resume, because they would turn the run into a different one.
//!
//! Compares keys and values only. Data files may move: their content is compared by fingerprint in `engine/start.rs`.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use crate::config::keys::{Found, find};
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

/// The changes from `old` to `new` that a resume refuses, in the order of their keys.
///
/// # Panics
/// As [`crate::config::to_toml`].
#[must_use]
pub fn identity_changes(old: &RunConfig, new: &RunConfig) -> Vec<IdentityChange> {
    let (old, new) = (flat_values(old), flat_values(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let is_identity = |key: &str| matches!(find(key), Found::Key(key) if key.is_identity);
    let show = |value: Option<&Value>| value.map_or_else(|| "not set".into(), toml_line);
    keys.into_iter()
        .filter(|key| is_identity(key) && old.get(*key) != new.get(*key))
        .map(|key| IdentityChange { key: key.clone(), old: show(old.get(key)), new: show(new.get(key)) })
        .collect()
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
