//! Allowed values of a key: type, range, and the words for both in errors.
//!
//! Checks single values; `check.rs` checks how the values of different keys fit together. Start at
//! [`ValueKind::read`].

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use toml::Value;

use crate::config::{Cadence, Count, DeviceChoice, PatchSize, Share, TokenLimit, WallTime};

/// Allowed values of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueKind {
    /// A plain file name.
    Name,
    /// A non-empty text.
    Text,
    /// A list of texts; a single text becomes a list of one.
    Texts,
    /// A boolean.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An integer between these two, inclusive.
    Whole(u64, u64),
    /// A finite number.
    Number(Range),
    /// Two numbers in [0, 1).
    Betas,
    /// A [`Count`] of at least 1.
    Count,
    /// A [`Share`].
    Share,
    /// A [`PatchSize`].
    PatchSize,
    /// A [`Cadence`].
    Cadence,
    /// A [`TokenLimit`].
    TokenLimit,
    /// A [`Cadence`] that is not "never".
    CadenceWithoutNever,
    /// A [`DeviceChoice`].
    Device,
    /// A [`WallTime`].
    WallTime,
    /// A list of files, folders and patterns; a single path becomes a list of one.
    Paths,
    /// A directory.
    Directory,
    /// The name of a run, or the directory of a model.
    Model,
    /// A word or the path of a tokenizer.json.
    Tokenizer,
    /// The list of stages.
    Stages,
}

/// Which finite numbers are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Greater than 0.
    Positive,
    /// 0 or more.
    NotNegative,
    /// From 0 to 1, inclusive.
    Fraction,
}

/// Tokenizers that need no file.
const TOKENIZER_WORDS: [&str; 2] = ["bytes", "demo"];

/// Maximum length of a name, in bytes: the file systems' 255 minus space for suffixes.
const LONGEST_NAME: usize = 200;

impl ValueKind {
    /// Allowed values, readable after "expected ".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Name => "a plain file name: not empty, no slash, no leading dot, no control \
                           characters"
                .into(),
            Self::Text => "a non-empty string".into(),
            Self::Texts => "a list of strings".into(),
            Self::Flag => "true or false".into(),
            Self::Word(words) => format!("one of {words:?}"),
            Self::Whole(least, most) => format!("an integer from {least} to {most}"),
            Self::Number(Range::Positive) => "a number greater than 0".into(),
            Self::Number(Range::NotNegative) => "a number that is not negative".into(),
            Self::Number(Range::Fraction) => "a number from 0 to 1".into(),
            Self::Betas => "two numbers from 0 to less than 1, e.g. [0.9, 0.95]".into(),
            Self::Count => "a count of at least 1, e.g. 4096, \"256k\" or \"1.5B\"".into(),
            Self::Share => Share::EXPECTED.into(),
            Self::PatchSize => format!("a patch size from 1 to {}", PatchSize::MAX),
            Self::Cadence => Cadence::EXPECTED.into(),
            Self::TokenLimit => TokenLimit::EXPECTED.into(),
            Self::CadenceWithoutNever => "a number of steps or \"auto\"".into(),
            Self::Device => {
                "a device: \"auto\", \"cpu\", \"wgpu\", \"wgpu:0\", \"cuda\" or \"cuda:0\"".into()
            }
            Self::WallTime => WallTime::EXPECTED.into(),
            Self::Paths => "a list of paths, e.g. [\"text.txt\"]".into(),
            Self::Directory => "the path of a directory".into(),
            Self::Model => "the name of a run, or the path of a directory".into(),
            Self::Tokenizer => "\"bytes\", \"demo\" or the path of a tokenizer.json".into(),
            Self::Stages => {
                "a list of stages, e.g. [{patch_size=4,share=0.5},{patch_size=1}]".into()
            }
        }
    }

    /// Returns `value` in its normal form, with paths made absolute relative to `folder`, or `None`
    /// if it is not of this kind.
    pub(crate) fn read(self, value: &Value, folder: &Path) -> Option<Value> {
        let fits = match self {
            Self::Name => value.as_str().is_some_and(is_plain_name),
            Self::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::Flag => value.is_bool(),
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::Whole(least, most) => value
                .as_integer()
                .and_then(|whole| u64::try_from(whole).ok())
                .is_some_and(|whole| (least..=most).contains(&whole)),
            Self::Number(range) => {
                return number(value).filter(|number| range.contains(*number)).map(Value::Float);
            }
            Self::Betas => return betas(value),
            Self::Count => parse::<Count>(value).is_some_and(|count| count.0 > 0),
            Self::Share => parse::<Share>(value).is_some(),
            Self::PatchSize => parse::<PatchSize>(value).is_some(),
            Self::Cadence => parse::<Cadence>(value).is_some(),
            Self::TokenLimit => parse::<TokenLimit>(value).is_some(),
            Self::CadenceWithoutNever => {
                parse::<Cadence>(value).is_some_and(|cadence| cadence != Cadence::Never)
            }
            Self::Device => parse::<DeviceChoice>(value).is_some(),
            Self::WallTime => parse::<WallTime>(value).is_some(),
            Self::Texts => return list(value, |text| Some(text.to_owned())),
            Self::Paths => {
                return list(value, |path| absolute(path, folder))
                    .filter(|list| list.as_array().is_some_and(|paths| !paths.is_empty()));
            }
            Self::Directory | Self::Model => {
                return absolute(value.as_str()?, folder).map(Value::String);
            }
            Self::Tokenizer => return tokenizer(value.as_str()?, folder).map(Value::String),
            Self::Stages => false,
        };
        fits.then(|| value.clone())
    }
}

impl Range {
    fn contains(self, number: f64) -> bool {
        match self {
            Self::Positive => number > 0.0,
            Self::NotNegative => number >= 0.0,
            Self::Fraction => (0.0..=1.0).contains(&number),
        }
    }
}

/// Whether `name` can be the name of a run's directory: not a path, not hidden, printable, not too
/// long.
#[must_use]
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.len() <= LONGEST_NAME
        && !name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
}

/// Joins `path` to `folder` and resolves `.` and `..` lexically: the path may not exist yet.
pub(crate) fn clean_path(path: &Path, folder: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in folder.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => {
                clean.pop();
            }
            Component::ParentDir if clean.has_root() => {}
            other => clean.push(other),
        }
    }
    clean
}

fn absolute(path: &str, folder: &Path) -> Option<String> {
    // TOML is UTF-8, so a folder with a name in another encoding cannot be written.
    let absolute = clean_path(Path::new(path), folder).into_os_string().into_string().ok();
    absolute.filter(|_| !path.is_empty())
}

fn tokenizer(text: &str, folder: &Path) -> Option<String> {
    if TOKENIZER_WORDS.contains(&text) { Some(text.to_owned()) } else { absolute(text, folder) }
}

fn parse<'de, T: Deserialize<'de>>(value: &Value) -> Option<T> {
    value.clone().try_into().ok()
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Float(number) => *number,
        Value::Integer(whole) => *whole as f64,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn betas(value: &Value) -> Option<Value> {
    let betas: Vec<f64> = value.as_array()?.iter().map(number).collect::<Option<_>>()?;
    let fit = betas.len() == 2 && betas.iter().all(|beta| (0.0..1.0).contains(beta));
    fit.then(|| Value::Array(betas.into_iter().map(Value::Float).collect()))
}

fn list(value: &Value, keep: impl Fn(&str) -> Option<String>) -> Option<Value> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        single => std::slice::from_ref(single),
    };
    let kept = items
        .iter()
        .map(|item| item.as_str().and_then(&keep).map(Value::String))
        .collect::<Option<_>>()?;
    Some(Value::Array(kept))
}
