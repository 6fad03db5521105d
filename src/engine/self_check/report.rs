//! What became of a check: how far each operation is from the CPU's, and which is wrong.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Precision;
use crate::engine::device::USES_SPIRV;
use crate::run::sanitize_line;

/// How far the outputs of one operation are apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Its name.
    pub operation: String,
    /// Tokens of a patch, where that matters.
    pub patch_size: Option<usize>,
    /// The output that is furthest from the CPU's.
    pub worst_output: String,
    /// Its largest difference, relative to its largest value; infinite if there is a number that is none.
    #[serde(with = "crate::run::number")]
    pub difference: f64,
    /// The largest difference that is only rounding.
    pub tolerance: f64,
}

impl Checked {
    /// Whether this is rounding.
    pub fn is_right(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device, as `--device` calls it.
    pub device: String,
    /// What it says about itself.
    pub identity: String,
    /// Number format of the computation.
    pub precision: Precision,
    /// Seconds that the check took; of the check that is remembered, if this one was not made again.
    pub seconds: f64,
    /// Whether an earlier check was remembered.
    #[serde(default)]
    pub is_remembered: bool,
    /// Every operation on every shape.
    pub operations: Vec<Checked>,
}

/// A device computes wrong.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{device} computes wrong results: \"{operation}\" ({output}) differs from the CPU by {difference:.2e} of its largest value, which is more than {tolerance:.0e}"
)]
pub struct Failure {
    /// The device.
    pub device: String,
    /// Name of the operation.
    pub operation: String,
    /// The output that differs most.
    pub output: String,
    /// The difference.
    pub difference: f64,
    /// What would be rounding.
    pub tolerance: f64,
}

impl Failure {
    /// What to type next.
    pub fn hint(&self) -> String {
        let build = if USES_SPIRV && self.device.starts_with("wgpu") {
            "a build whose shaders do not go through SPIR-V (cargo build --release --features wgpu)"
        } else {
            "another version of the GPU driver"
        };
        format!("use --device cpu, or try {build}")
    }
}

impl Report {
    /// The first operation that is wrong.
    pub fn failure(&self) -> Option<Failure> {
        let wrong = self.operations.iter().find(|checked| !checked.is_right())?;
        Some(Failure {
            device: self.device.clone(),
            operation: wrong.operation.clone(),
            output: wrong.worst_output.clone(),
            difference: wrong.difference,
            tolerance: wrong.tolerance,
        })
    }

    /// What was compared, in a line; text from outside.
    pub fn subject(&self) -> String {
        let precision = match self.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        };
        let identity = if self.identity.is_empty() { String::new() } else { format!(" ({})", self.identity) };
        let when = if self.is_remembered { "remembered from an earlier check".to_owned() } else { format!("{:.1} s", self.seconds) };
        format!("{}{identity} in {precision}, {when}", self.device)
    }

    /// A line for each operation, of at most 78 columns.
    pub fn lines(&self) -> Vec<String> {
        let head = format!("{:<29} {:>10} {:>10}  {}", "operation", "difference", "allowed", "furthest output");
        let line = |checked: &Checked| {
            let patches = checked.patch_size.map_or(String::new(), |size| format!(", K = {size}"));
            let name = format!("{}{patches}", checked.operation);
            let verdict = if checked.is_right() { "" } else { "WRONG: " };
            let text = format!("{name:<29} {:>10.1e} {:>10.0e}  {verdict}{}", checked.difference, checked.tolerance, sanitize_line(&checked.worst_output));
            text.chars().take(78).collect()
        };
        std::iter::once(head).chain(self.operations.iter().map(line)).collect()
    }
}
