//! The value types of configuration keys: counts, shares, patch sizes, cadences, devices,
//! durations.
//!
//! Each is parsed once, here, and trusted everywhere else.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::{Serialize, Serializer};

/// A count, written as an integer or with a decimal suffix: `3000000`, `"3M"`, `"1.5B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Count(pub u64);

/// A fraction in (0, 1], written as a number or as a quotient: `0.5`, `"2/3"`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(f64);

/// Number of consecutive tokens that are averaged into one input position (the paper's K), at least
/// 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PatchSize(u32);

/// An interval in completed optimizer steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// The plan chooses the interval from the length of the run.
    Auto,
    /// Every this many steps.
    Every(NonZeroU64),
    /// Never.
    Never,
}

/// Maximum number of tokens to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLimit {
    /// The plan chooses a number that suits the length of the run.
    Auto,
    /// This number.
    AtMost(Count),
}

/// Requested device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device that this build supports and this machine has.
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU through wgpu (Vulkan or Metal); `"vulkan"` is an alias.
    Wgpu(Option<usize>),
    /// An NVIDIA GPU through CUDA.
    Cuda(Option<usize>),
}

/// A duration, written like `"11h30m"`, `"90s"` or `"2d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime(pub Duration);

impl Share {
    /// What a share is, for errors.
    pub(crate) const EXPECTED: &str = "a share greater than 0 and at most 1, e.g. 0.5 or \"2/3\"";

    /// Builds a share from a number in (0, 1].
    pub fn new(value: f64) -> Result<Self, String> {
        if value > 0.0 && value <= 1.0 {
            Ok(Self(value))
        } else {
            Err(format!("{value} is not {}", Self::EXPECTED))
        }
    }

    /// The share as a number in (0, 1].
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PatchSize {
    /// Single tokens: a plain language model.
    pub const ONE: Self = Self(1);
    /// Larger patches have never been useful; they are taken for typing errors.
    pub const MAX: u32 = 1024;

    /// Builds a patch size from a number in 1..=[`PatchSize::MAX`].
    pub fn new(tokens: u64) -> Result<Self, String> {
        match u32::try_from(tokens) {
            Ok(tokens @ 1..=Self::MAX) => Ok(Self(tokens)),
            _ => {
                Err(format!("{tokens} is not a patch size: it must be between 1 and {}", Self::MAX))
            }
        }
    }

    /// Tokens per patch.
    #[must_use]
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let complaint = || {
            format!(
                "{text:?} is not a count: write an integer, or a number with a suffix, e.g. \
                 \"256k\", \"3M\" or \"1.5B\""
            )
        };
        let last = trimmed.chars().last().ok_or_else(complaint)?;
        let (digits, exponent) = match last.to_ascii_lowercase() {
            'k' => (&trimmed[..trimmed.len() - 1], 3),
            'm' => (&trimmed[..trimmed.len() - 1], 6),
            'b' | 'g' => (&trimmed[..trimmed.len() - 1], 9),
            't' => (&trimmed[..trimmed.len() - 1], 12),
            _ => (trimmed, 0),
        };
        scaled_decimal(digits, exponent).map(Self).ok_or_else(complaint)
    }
}

/// Computes `digits` times ten to the `exponent` exactly, without a float in between.
fn scaled_decimal(digits: &str, exponent: usize) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |s: &str| s.chars().all(|c| c.is_ascii_digit() || c == '_');
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > exponent {
        return None;
    }
    let digits: String = format!("{whole}{fraction}").chars().filter(|c| *c != '_').collect();
    let scale = 10_u64.checked_pow(u32::try_from(exponent - fraction.len()).ok()?)?;
    // TOML integers have 63 bits, and a count must survive being written.
    digits.parse::<u64>().ok()?.checked_mul(scale).filter(|number| i64::try_from(*number).is_ok())
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |s: &str| {
            s.trim().parse::<f64>().map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
        };
        match text.split_once('/') {
            Some((above, below)) => Self::new(number(above)? / number(below)?),
            None => Self::new(number(text)?),
        }
    }
}

impl FromStr for PatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<Count>().and_then(|tokens| Self::new(tokens.0))
    }
}

impl Cadence {
    /// What a cadence is, for errors.
    pub(crate) const EXPECTED: &str = "a number of steps, \"auto\" or \"never\"";
}

impl FromStr for Cadence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            other => other
                .parse::<Count>()
                .ok()
                .and_then(|steps| NonZeroU64::new(steps.0))
                .map(Self::Every)
                .ok_or_else(|| format!("{text:?} is not {}", Self::EXPECTED)),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || {
            format!(
                "{text:?} is not a device: write \"auto\", \"cpu\", \"wgpu\", \"wgpu:0\", \
                 \"cuda\" or \"cuda:0\""
            )
        };
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, Some(index.parse::<usize>().map_err(|_| complaint())?)),
            None => (text, None),
        };
        match (kind, index) {
            ("auto", None) => Ok(Self::Auto),
            ("cpu", None) => Ok(Self::Cpu),
            ("wgpu" | "vulkan", index) => Ok(Self::Wgpu(index)),
            ("cuda", index) => Ok(Self::Cuda(index)),
            _ => Err(complaint()),
        }
    }
}

impl WallTime {
    /// What a duration is, for errors.
    pub(crate) const EXPECTED: &str = "a duration, e.g. \"11h30m\", \"90m\" or \"2d\"";
}

impl FromStr for WallTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || format!("{text:?} is not {}", Self::EXPECTED);
        let mut seconds = 0_u64;
        let mut digits = String::new();
        for c in text.chars() {
            let unit = match c {
                '0'..='9' => {
                    digits.push(c);
                    continue;
                }
                'd' => 86_400,
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return Err(complaint()),
            };
            let number: u64 = digits.parse().map_err(|_| complaint())?;
            seconds = number
                .checked_mul(unit)
                .and_then(|s| s.checked_add(seconds))
                .ok_or_else(complaint)?;
            digits.clear();
        }
        if seconds == 0 || !digits.is_empty() {
            return Err(complaint());
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl TokenLimit {
    /// What a limit is, for errors.
    pub(crate) const EXPECTED: &str = "a number of tokens, e.g. 8192 or \"256k\", or \"auto\"";
}

impl FromStr for TokenLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::AtMost).map_err(|_| format!("{text:?} is not {}", Self::EXPECTED))
    }
}

impl fmt::Display for TokenLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::AtMost(tokens) => write!(f, "{}", tokens.0),
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Every(steps) => write!(f, "{steps}"),
            Self::Never => write!(f, "never"),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Wgpu(None) => write!(f, "wgpu"),
            Self::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
            Self::Cuda(None) => write!(f, "cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl fmt::Display for PatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, name) in [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")]
        {
            if unit > 0 {
                write!(f, "{unit}{name}")?;
            }
        }
        Ok(())
    }
}

/// Reads a number or a string as text.
struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number or a string")
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

/// A configuration may write each of these as a number or as a string.
macro_rules! read_from_number_or_text {
    ($($kind:ty),*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(NumberOrText)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

read_from_number_or_text!(Count, Share, PatchSize, Cadence, TokenLimit, DeviceChoice, WallTime);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0)
    }
}

impl Serialize for PatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl Serialize for Cadence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Every(steps) => serializer.serialize_u64(steps.get()),
            Self::Auto | Self::Never => serializer.collect_str(self),
        }
    }
}

impl Serialize for TokenLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AtMost(tokens) => tokens.serialize(serializer),
            Self::Auto => serializer.collect_str(self),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
