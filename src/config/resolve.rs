//! From merged layers to a configuration whose values fit together.
//!
//! Start at [`resolve`].

use std::collections::BTreeMap;
use std::path::Path;

use toml::Value;

use crate::config::RunConfig;
use crate::config::check;
use crate::config::error::{ConfigError, Origin};
use crate::config::keys::KEYS;
use crate::config::kind::is_plain_name;
use crate::config::layers::{Layer, Leaf, ParsedDocument};
use crate::config::source::ConfigSource;

/// A configuration and the origin of each value.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The resolved configuration.
    pub config: RunConfig,
    /// Origin of each value, by key: `training.tokens`, `stages[0].share`.
    pub origins: BTreeMap<String, Origin>,
}

/// Reads the configuration of a run directory, which has every key.
///
/// # Errors
/// As [`load`].
pub fn load_resolved(path: &Path) -> Result<RunConfig, ConfigError> {
    let place = ConfigSource::File { shown: path.to_owned(), absolute: path.to_owned() };
    let ParsedDocument { layer, extends } = place.read(None, place.folder(path))?;
    match extends {
        Some((_, origin)) => {
            Err(ConfigError::UnknownKey { origin, key: "extends".into(), nearest: None })
        }
        None => resolve(layer.put_over(Layer::defaults()?)).map(|loaded| loaded.config),
    }
}

/// Writes a configuration with every key and its value, as [`load_resolved`] reads it.
///
/// # Panics
/// If a path is not UTF-8 or a number is beyond TOML's 63 bits, which loading rules out.
#[must_use]
pub fn to_toml(config: &RunConfig) -> String {
    toml::to_string(config)
        .unwrap_or_else(|error| unreachable!("a loaded configuration can be written: {error}"))
}

/// Checks that the values of `layer` fit together, and builds the configuration.
pub(crate) fn resolve(mut layer: Layer) -> Result<LoadedConfig, ConfigError> {
    for idx in 0..layer.num_stages() {
        for key in KEYS.iter().filter(|key| key.is_of_stage()) {
            let path = format!("stages[{idx}].{}", key.word());
            if let (false, Some(value)) = (layer.leaves.contains_key(&path), key.default_value()) {
                put_default(&mut layer, &path, value);
            }
        }
    }
    if !layer.leaves.get("name").and_then(|leaf| leaf.value.as_str()).is_some_and(is_plain_name) {
        return Err(ConfigError::Missing {
            origin: None,
            keys: vec!["name".into()],
            examples: vec!["name = \"my-run\"".into()],
        });
    }
    check::nothing_missing(&layer)?;
    let config: RunConfig = layer.to_table().try_into().map_err(|error: toml::de::Error| {
        ConfigError::Unfit { message: error.message().to_owned() }
    })?;
    let origins = layer.leaves.into_iter().map(|(key, leaf)| (key, leaf.origin)).collect();
    check::values_fit(&config, &origins)?;
    Ok(LoadedConfig { config, origins })
}

pub(crate) fn put_default(layer: &mut Layer, key: &str, value: Value) {
    layer.leaves.insert(key.to_owned(), Leaf::new(value, Origin::Default));
}
