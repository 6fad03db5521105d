//! From files and `--set` to a configuration: finds the layers, merges them, checks the result.
//!
//! The only part of `config` that reads configuration files. Start at [`load`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Value;

use crate::config::RunConfig;
use crate::config::check;
use crate::config::error::{ConfigError, Origin};
use crate::config::init_from;
use crate::config::kind::{clean_path, is_plain_name};
use crate::config::layers::{Document, Layer, Leaf, ParsedDocument};
use crate::config::presets::{PRESETS, Preset};

/// Built-in configurations: name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("demo", include_str!("../../configs/demo.toml")),
    ("continue", include_str!("../../configs/continue.toml")),
    ("paper-370m", include_str!("../../configs/paper-370m.toml")),
    ("paper-780m", include_str!("../../configs/paper-780m.toml")),
    ("paper-1.3b", include_str!("../../configs/paper-1.3b.toml")),
    ("paper-2.7b", include_str!("../../configs/paper-2.7b.toml")),
];

/// Maximum size of a configuration file, in bytes.
const MAX_BYTES: u64 = 16 << 20;

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

/// Finds the directory of a run by name; an error if several runs have that name.
pub type FindRun<'a> = &'a dyn Fn(&str) -> Result<Option<PathBuf>, String>;

/// A configuration and the origin of each value.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// The resolved configuration.
    pub config: RunConfig,
    /// Origin of each value, by key: `training.tokens`, `stages[0].share`.
    pub origins: BTreeMap<String, Origin>,
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

/// Names of the built-in configurations.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// Where a configuration is read from.
enum ConfigSource {
    BuiltIn { name: &'static str, text: &'static str },
    File { shown: PathBuf, absolute: PathBuf },
}

impl ConfigSource {
    /// A built-in name wins over a file of that name; `./name` selects the file. If `books` is not
    /// a file, `books.toml` is tried.
    fn find(source: &str, shown_folder: &Path, folder: &Path) -> Self {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == source) {
            return Self::BuiltIn { name, text };
        }
        let file = |source: &str| {
            (clean_path(Path::new(source), shown_folder), clean_path(Path::new(source), folder))
        };
        let (shown, absolute) = file(source);
        let with_ending = file(&format!("{source}.toml"));
        let is_short = (absolute.is_dir() || !absolute.exists()) && with_ending.1.is_file();
        let (shown, absolute) = if is_short { with_ending } else { (shown, absolute) };
        Self::File { shown, absolute }
    }

    fn read(
        &self,
        asked_by: Option<&Origin>,
        folder: &Path,
    ) -> Result<ParsedDocument, ConfigError> {
        match self {
            Self::BuiltIn { name, text } => {
                Document { text, origin: &|_| Origin::BuiltIn { name: (*name).to_owned() }, folder }
                    .read()
            }
            Self::File { shown, absolute } => {
                let text =
                    read_text(absolute).map_err(|error| unreadable(shown, error, asked_by))?;
                // Some editors write a byte order mark at the start.
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                Document {
                    text,
                    origin: &|line| Origin::File { path: shown.clone(), line },
                    folder,
                }
                .read()
            }
        }
    }

    /// Base of relative paths; a built-in configuration uses the folder of the file that names it.
    fn folder<'a>(&'a self, named_in: &'a Path) -> &'a Path {
        match self {
            Self::BuiltIn { .. } => named_in,
            Self::File { absolute, .. } => absolute.parent().unwrap_or(named_in),
        }
    }

    fn shown_folder(&self) -> &Path {
        match self {
            Self::BuiltIn { .. } => Path::new(""),
            Self::File { shown, .. } => shown.parent().unwrap_or(Path::new("")),
        }
    }

    fn stem(&self) -> String {
        match self {
            Self::BuiltIn { name, .. } => (*name).to_owned(),
            Self::File { absolute, .. } => {
                absolute.file_stem().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// Unique key of this source, to detect cycles.
    fn identity(&self) -> String {
        match self {
            Self::BuiltIn { name, .. } => (*name).to_owned(),
            Self::File { absolute, .. } => absolute.display().to_string(),
        }
    }
}

/// Reads `place`, which was named in the folder `named_in`, and merges it over what it extends;
/// `trail` lists the sources so far.
fn read_with_bases(
    place: &ConfigSource,
    asked_by: Option<&Origin>,
    named_in: &Path,
    trail: &mut Vec<String>,
) -> Result<Layer, ConfigError> {
    let is_circle = trail.contains(&place.identity());
    trail.push(place.identity());
    if let (true, Some(origin)) = (is_circle, asked_by) {
        return Err(ConfigError::Circle { origin: origin.clone(), chain: std::mem::take(trail) });
    }
    let folder = place.folder(named_in);
    let ParsedDocument { layer, extends } = place.read(asked_by, folder)?;
    let Some((base, origin)) = extends else {
        return Ok(layer);
    };
    let base = ConfigSource::find(&base, place.shown_folder(), folder);
    let mut below = read_with_bases(&base, Some(&origin), folder, trail)?;
    // The name applies to its own file only: two files that extend it are two runs.
    below.leaves.remove("name");
    Ok(layer.put_over(below))
}

/// Reads a file of limited size, since a device may never end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {} MB", MAX_BYTES >> 20)));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: io::Error, asked_by: Option<&Origin>) -> ConfigError {
    if error.kind() != io::ErrorKind::NotFound {
        return ConfigError::Unreadable { path: path.to_owned(), error };
    }
    let source_name = path.display().to_string();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut built_in: Vec<&str> = built_in_names().collect();
    built_in.sort_by_key(|name| strsim::damerau_levenshtein(name, &stem));
    ConfigError::NotFound { source_name, asked_by: asked_by.cloned(), built_in }
}

fn preset_of(explicit: &Layer) -> Result<&'static Preset, ConfigError> {
    let Some(name) = explicit.leaves.get("model.preset").and_then(|leaf| leaf.value.as_str())
    else {
        return Ok(&PRESETS[0]);
    };
    Preset::find(name)
        .ok_or_else(|| ConfigError::Unfit { message: format!("there is no preset {name:?}") })
}

fn put_default(layer: &mut Layer, key: &str, value: Value) {
    layer.leaves.insert(key.to_owned(), Leaf::new(value, Origin::Default));
}

/// Checks that the values of `layer` fit together, and builds the configuration.
fn resolve(mut layer: Layer) -> Result<LoadedConfig, ConfigError> {
    for idx in 0..layer.num_stages() {
        let key = format!("stages[{idx}].optimizer_state");
        if !layer.leaves.contains_key(&key) {
            put_default(&mut layer, &key, Value::String("reset".into()));
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
