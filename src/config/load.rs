//! From files and `--set` to a configuration: finds the layers and merges them.
//!
//! Start at [`load`].

use std::path::Path;

use toml::Value;

use crate::config::error::ConfigError;
use crate::config::init_from::{self, FindRun};
use crate::config::layers::Layer;
use crate::config::presets::{PRESETS, Preset};
use crate::config::resolve::{LoadedConfig, put_default, resolve};
use crate::config::source::{ConfigSource, read_with_bases};

/// What to load.
#[derive(Debug, Clone, Copy)]
pub struct LoadRequest<'a> {
    /// Path of a file, or the name of a built-in configuration.
    pub source: &'a str,
    /// Values of `--set`: `section.key=value`.
    pub sets: &'a [String],
    /// Absolute folder against which relative paths on the command line are resolved.
    pub current_dir: &'a Path,
}

/// Loads a configuration and everything that it extends.
///
/// # Errors
/// When a file cannot be read, a key or a value is wrong, or the values do not fit together. The
/// error names the location, its hint the fix.
pub fn load(request: &LoadRequest<'_>) -> Result<LoadedConfig, ConfigError> {
    load_with_runs(request, &|_| Ok(None))
}

/// The same; `model.init_from` may also be the name of a run.
///
/// # Errors
/// As [`load`], and when several runs have that name.
pub fn load_with_runs(
    request: &LoadRequest<'_>,
    find_run: FindRun<'_>,
) -> Result<LoadedConfig, ConfigError> {
    let place = ConfigSource::find(request.source, Path::new(""), request.current_dir);
    let file = read_with_bases(&place, None, request.current_dir, &mut Vec::new())?;
    let mut explicit = Layer::from_sets(request.sets, request.current_dir)?.put_over(file);
    init_from::follow_name(&mut explicit, &place.stem(), find_run)?;
    let preset = preset_of(&explicit)?;
    let mut below = Layer::preset(preset).put_over(Layer::defaults()?);
    put_default(&mut below, "name", Value::String(place.stem()));
    if let Some(heads) = explicit.leaves.get("model.num_attention_heads") {
        put_default(&mut below, "model.num_key_value_heads", heads.value.clone());
    }
    let Some(weights) = init_from::weights_of(&explicit)? else {
        return resolve(explicit.put_over(below));
    };
    let mut merged = explicit.put_over(weights.layer.clone().put_over(below));
    weights.shorten_sequences(&mut merged);
    resolve(merged)
}

fn preset_of(explicit: &Layer) -> Result<&'static Preset, ConfigError> {
    let Some(name) = explicit.leaves.get("model.preset").and_then(|leaf| leaf.value.as_str())
    else {
        return Ok(&PRESETS[0]);
    };
    Preset::find(name)
        .ok_or_else(|| ConfigError::Unfit { message: format!("there is no preset {name:?}") })
}
