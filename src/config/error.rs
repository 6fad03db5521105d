//! Why a configuration is invalid; every variant carries the location and the facts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::advice::{Advice, Audience, USAGE};
use crate::config::keys::{Found, Key, find};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Origin {
    /// Default of the key.
    Default,
    /// The sizes of `model.preset`.
    Preset {
        /// Name of the preset.
        name: String,
    },
    /// The weights of `model.init_from`.
    InitFrom {
        /// Their directory.
        path: PathBuf,
    },
    /// A built-in configuration.
    BuiltIn {
        /// Name of the configuration.
        name: String,
    },
    /// A line of a configuration file.
    File {
        /// The file, as the user named it.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
    },
    /// `--set` on the command line.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::Preset { name } => write!(f, "preset {name}"),
            Self::InitFrom { path } => write!(f, "init_from {}", path.display()),
            Self::BuiltIn { name } => write!(f, "built-in {name}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Set => write!(f, "--set"),
        }
    }
}

/// Why a configuration is invalid.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Neither a file nor a built-in configuration has this name.
    #[error("{}there is no configuration file {source_name:?} and no built-in configuration of that name", prefix(.asked_by.as_ref()))]
    NotFound {
        /// Name or path as given.
        source_name: String,
        /// Location of the `extends` line; `None` if it was named on the command line.
        asked_by: Option<Origin>,
        /// Names of the built-in configurations, most similar first.
        built_in: Vec<&'static str>,
    },
    /// An existing file cannot be read.
    #[error("{} cannot be read: {error}", .path.display())]
    Unreadable {
        /// Path as the user wrote it.
        path: PathBuf,
        /// Operating system error.
        error: io::Error,
    },
    /// A file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// File and line.
        origin: Origin,
        /// Message of the TOML parser.
        message: String,
    },
    /// Files extend one another in a cycle.
    #[error("{origin}: the configuration extends itself: {}", .chain.join(" -> "))]
    Circle {
        /// The `extends` line that closes the cycle.
        origin: Origin,
        /// Files along the cycle, in order.
        chain: Vec<String>,
    },
    /// `--set` without a value.
    #[error("--set {text:?} has no value")]
    SetWithoutValue {
        /// Argument of `--set` as written.
        text: String,
    },
    /// Unknown key.
    #[error("{origin}: unknown key {key:?}")]
    UnknownKey {
        /// Location of the key.
        origin: Origin,
        /// Full path of the key.
        key: String,
        /// The key that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A value is of the wrong type or out of range.
    #[error("{origin}: {key} = {found}, expected {expected}")]
    Value {
        /// Location of the value.
        origin: Origin,
        /// Full path of the key.
        key: String,
        /// The value as TOML text.
        found: String,
        /// Allowed values, readable after "expected ".
        expected: String,
    },
    /// More stages than allowed.
    #[error("{origin}: {stages} stages, but at most {limit} are allowed")]
    TooManyStages {
        /// Location of the list of stages.
        origin: Origin,
        /// Number of stages.
        stages: usize,
        /// Maximum number of stages.
        limit: usize,
    },
    /// Two keys that exclude each other.
    #[error("{first_origin}: {first} and {second} ({second_origin}) cannot both be set")]
    Alternatives {
        /// One key.
        first: &'static str,
        /// Location of the first key.
        first_origin: Origin,
        /// The other key.
        second: &'static str,
        /// Location of the second key.
        second_origin: Origin,
    },
    /// A required value is missing.
    #[error("{}{}", prefix(.origin.as_ref()), none_is_set(.keys))]
    Missing {
        /// Where the key belongs, if that is a single place.
        origin: Option<Origin>,
        /// Keys of which one is required.
        keys: Vec<String>,
        /// Example lines that would fix the error.
        examples: Vec<String>,
    },
    /// The hidden size cannot be divided into heads of even dimension.
    #[error(
        "{origin}: model.hidden_size = {hidden_size} cannot be divided into \
         model.num_attention_heads = {heads} heads of even dimension"
    )]
    HeadSize {
        /// Location of the number of heads.
        origin: Origin,
        /// Hidden size.
        hidden_size: usize,
        /// Query heads.
        heads: usize,
    },
    /// The number of query heads is not a multiple of the number of key and value heads.
    #[error(
        "{origin}: model.num_key_value_heads = {key_value_heads} does not divide \
         model.num_attention_heads = {heads}"
    )]
    KeyValueHeads {
        /// Location of the number of key and value heads.
        origin: Origin,
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        key_value_heads: usize,
    },
    /// The minimum learning rate is greater than the peak.
    #[error("{origin}: schedule.min_learning_rate = {minimum:?} is greater than {key} = {peak:?}")]
    MinimumAbovePeak {
        /// Location of the minimum.
        origin: Origin,
        /// Value of `schedule.min_learning_rate`.
        minimum: f64,
        /// Key of the peak.
        key: String,
        /// Peak learning rate.
        peak: f64,
    },
    /// `model.init_from` names a directory without valid model sizes.
    #[error("{origin}: model.init_from cannot be used: {problem}")]
    InitFrom {
        /// Location of `model.init_from`.
        origin: Origin,
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A size differs from that of the initial weights.
    #[error("{origin}: {key} = {found}, but the weights in {} have {expected}", .path.display())]
    OtherSize {
        /// Location of the size.
        origin: Origin,
        /// Its key.
        key: &'static str,
        /// The value as TOML text.
        found: String,
        /// Value of the weights, as TOML text.
        expected: String,
        /// The directory of `model.init_from`.
        path: Box<Path>,
    },
    /// The checked values do not form a configuration: a bug in patchtui.
    #[error("the checked values do not form a configuration: {message}")]
    Unfit {
        /// Message of the deserializer.
        message: String,
    },
}

fn prefix(origin: Option<&Origin>) -> String {
    origin.map_or_else(String::new, |origin| format!("{origin}: "))
}

/// `seed is not set`, `neither a nor b is set`, `none of a, b and c is set`.
fn none_is_set(keys: &[String]) -> String {
    match keys {
        [key] => format!("{key} is not set"),
        [first, second] => format!("neither {first} nor {second} is set"),
        [first @ .., last] => format!("none of {} and {last} is set", first.join(", ")),
        [] => "nothing is set".into(),
    }
}

impl Advice for ConfigError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::NotFound { built_in, .. } => format!(
                "built-in configurations: {}; to write your own: patchtui config template > \
                 my.toml",
                built_in.join(", ")
            ),
            Self::Circle { .. } => "remove one of the \"extends\" lines".into(),
            Self::TooManyStages { .. } => {
                "merge stages: a run usually has two, sometimes three or four".into()
            }
            Self::SetWithoutValue { text } => format!(
                "write --set section.key=value, e.g. --set {}=...",
                if text.is_empty() { "training.tokens" } else { text }
            ),
            Self::UnknownKey { origin: Origin::Set, key, .. } if key.starts_with("stages") => {
                "set all stages at once: --set 'stages=[{patch_size=4,share=0.5},{patch_size=1}]'"
                    .into()
            }
            Self::UnknownKey { nearest: Some(nearest), .. } => {
                match nearest.strip_prefix("stages[].") {
                    Some(word) => format!("did you mean {word:?} in [[stages]]?"),
                    None => format!("did you mean {:?}?", nearest.trim_end_matches("[]")),
                }
            }
            Self::UnknownKey { key, .. } if key == "extends" => {
                "\"extends\" can only be written in a file".into()
            }
            Self::Value { key, .. } if let Found::Key(Key { hint: Some(hint), .. }) = find(key) => {
                (*hint).into()
            }
            Self::UnknownKey { .. }
            | Self::Unreadable { .. }
            | Self::Syntax { .. }
            | Self::Value { .. } => "list every key with: patchtui config template".into(),
            Self::Alternatives { first, second, .. } => format!("remove {first} or {second}"),
            Self::Missing { examples, .. } => format!("add {}", examples.join(", or ")),
            Self::HeadSize { hidden_size, heads, .. } => format!(
                "use model.hidden_size = {}, or change model.num_attention_heads",
                (hidden_size.max(&1)).next_multiple_of(2 * heads)
            ),
            Self::KeyValueHeads { heads, .. } => {
                format!("use model.num_key_value_heads = {heads}, or a divisor of it")
            }
            Self::InitFrom { .. } => "name a Hugging Face directory of a LLaMA model, a run or a \
                                      checkpoint: --set model.init_from=DIR"
                .into(),
            Self::OtherSize { key, .. } => {
                format!("remove {key}, or remove model.init_from to start from random weights")
            }
            Self::MinimumAbovePeak { .. } => "lower schedule.min_learning_rate".into(),
            Self::Unfit { .. } => {
                "this is a bug in patchtui: please report it with the configuration".into()
            }
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}
