//! Checks that the values of different keys fit together.
//!
//! Single values are checked in `kind.rs`, and what depends on the number of tokens in the plan.
//! Start at [`values_fit`].

use std::collections::BTreeMap;

use crate::config::RunConfig;
use crate::config::error::{ConfigError, Origin};
use crate::config::keys::{KEYS, Key, KeyGroup, Need};
use crate::config::kind::ValueKind;
use crate::config::layers::Layer;

/// Checks that every key that needs a value has one.
pub(crate) fn nothing_missing(layer: &Layer) -> Result<(), ConfigError> {
    let is_set = |key: &&Key| layer.leaves.contains_key(key.path);
    for group in KeyGroup::ALL {
        if !group.keys().any(|key| is_set(&key)) {
            return Err(missing(group.keys()));
        }
    }
    let is_list = |key: &&Key| key.kind == ValueKind::Stages;
    let is_needed = |key: &&Key| key.need == Need::Required && !key.is_of_stage() && !is_list(key);
    match KEYS.iter().filter(is_needed).find(|key| !is_set(key)) {
        Some(key) => Err(missing([key])),
        None if layer.num_stages() == 0 => Err(missing(KEYS.iter().filter(is_list))),
        None => Ok(()),
    }
}

fn missing<'a>(keys: impl IntoIterator<Item = &'a Key>) -> ConfigError {
    let keys: Vec<&Key> = keys.into_iter().collect();
    ConfigError::Missing {
        origin: None,
        keys: keys.iter().map(|key| key.path.to_owned()).collect(),
        examples: keys
            .iter()
            .take(2)
            .map(|key| format!("{} = {}", key.path, key.sample()))
            .collect(),
    }
}

/// Checks that the values of `config` fit together; `origins` says where each value was written.
pub(crate) fn values_fit(
    config: &RunConfig,
    origins: &BTreeMap<String, Origin>,
) -> Result<(), ConfigError> {
    let origin = |keys: &[&str]| written(keys, origins);
    let model = &config.model;
    let (hidden_size, heads, key_value_heads) =
        (model.hidden_size, model.num_attention_heads, model.num_key_value_heads);
    // RoPE rotates pairs of numbers, so the head width must be even.
    if !hidden_size.is_multiple_of(2 * heads) {
        return Err(ConfigError::HeadSize {
            origin: origin(&["model.num_attention_heads", "model.hidden_size"]),
            hidden_size,
            heads,
        });
    }
    if !heads.is_multiple_of(key_value_heads) {
        let origin = origin(&["model.num_key_value_heads", "model.num_attention_heads"]);
        return Err(ConfigError::KeyValueHeads { origin, heads, key_value_heads });
    }
    let minimum = config.schedule.min_learning_rate;
    for (key, peak) in peaks(config) {
        if minimum > peak {
            let origin = origin(&["schedule.min_learning_rate", &key]);
            return Err(ConfigError::MinimumAbovePeak { origin, minimum, key, peak });
        }
    }
    Ok(())
}

/// The peak learning rates of all stages, with their keys.
fn peaks(config: &RunConfig) -> impl Iterator<Item = (String, f64)> {
    let of_run = config.optimizer.learning_rate;
    config.stages.iter().enumerate().map(move |(idx, stage)| match stage.learning_rate {
        Some(peak) => (format!("stages[{idx}].learning_rate"), peak),
        None => ("optimizer.learning_rate".into(), of_run),
    })
}

/// The first origin among those of `keys` that a user wrote, else that of the first key.
fn written(keys: &[&str], origins: &BTreeMap<String, Origin>) -> Origin {
    let mut places = keys.iter().filter_map(|key| origins.get(*key));
    let is_written = |origin: &&Origin| matches!(origin, Origin::File { .. } | Origin::Set);
    places.clone().find(is_written).or_else(|| places.next()).cloned().unwrap_or(Origin::Default)
}
