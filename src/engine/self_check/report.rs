//! The result of a check: how far each operation is from the CPU's, and which one is wrong.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED};
use crate::config::Precision;
use crate::engine::device::USES_SPIRV;

/// The difference of one operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// Its name.
    pub operation: String,
    /// Patch size, if the operation depends on it.
    pub patch_size: Option<usize>,
    /// The output with the largest difference.
    pub worst_output: String,
    /// Its largest difference, relative to its largest value; infinite if a number is not finite.
    #[serde(with = "crate::record::number")]
    pub difference: f64,
    /// Maximum difference that rounding explains.
    pub tolerance: f64,
}

impl Checked {
    /// Whether rounding explains the difference.
    pub fn is_right(&self) -> bool {
        self.difference <= self.tolerance
    }
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The device, as `--device` names it.
    pub device: String,
    /// Its description.
    pub identity: String,
    /// Number format of the computation.
    pub precision: Precision,
    /// Duration of the check in seconds; for a cached result, that of the original check.
    pub seconds: f64,
    /// Whether the result is cached.
    #[serde(default)]
    pub is_remembered: bool,
    /// Every operation on every shape.
    pub operations: Vec<Checked>,
}

/// A device computes wrong results.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{device} computes wrong results: \"{operation}\" ({output}) differs from the CPU by \
     {difference:.2e} of its largest value (tolerance: {tolerance:.0e})"
)]
pub struct WrongResult {
    /// The device.
    pub device: String,
    /// Name of the operation.
    pub operation: String,
    /// The output with the largest difference.
    pub output: String,
    /// The difference.
    pub difference: f64,
    /// The tolerance.
    pub tolerance: f64,
}

impl Advice for WrongResult {
    fn hint(&self, _: Audience<'_>) -> String {
        let build = if USES_SPIRV && self.device.starts_with("wgpu") {
            "a build that does not compile shaders through SPIR-V (cargo build --release \
             --features wgpu)"
        } else {
            "another version of the GPU driver"
        };
        format!("use --device cpu, or try {build}")
    }

    fn exit_code(&self) -> u8 {
        FAILED
    }
}

impl Report {
    /// The first wrong operation.
    pub fn failure(&self) -> Option<WrongResult> {
        let wrong = self.operations.iter().find(|checked| !checked.is_right())?;
        Some(WrongResult {
            device: self.device.clone(),
            operation: wrong.operation.clone(),
            output: wrong.worst_output.clone(),
            difference: wrong.difference,
            tolerance: wrong.tolerance,
        })
    }

    /// What was compared, in one line; untrusted text.
    pub fn subject(&self) -> String {
        let precision = match self.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        };
        let identity =
            if self.identity.is_empty() { String::new() } else { format!(" ({})", self.identity) };
        let when = if self.is_remembered {
            "cached result of an earlier check".to_owned()
        } else {
            format!("{:.1} s", self.seconds)
        };
        format!("{}{identity} in {precision}, {when}", self.device)
    }

    /// A row per operation: the numbers, and the worst output.
    pub fn rows(&self) -> Vec<(String, String)> {
        let head = format!("{:<29} {:>10} {:>10}  ", "operation", "difference", "tolerance");
        let row = |checked: &Checked| {
            let patches = checked.patch_size.map_or(String::new(), |size| format!(", K = {size}"));
            let name = format!("{}{patches}", checked.operation);
            let verdict = if checked.is_right() { "" } else { "WRONG: " };
            (
                format!("{name:<29} {:>10.1e} {:>10.0e}  ", checked.difference, checked.tolerance),
                format!("{verdict}{}", checked.worst_output),
            )
        };
        std::iter::once((head, "worst output".into()))
            .chain(self.operations.iter().map(row))
            .collect()
    }
}
