//! The name of a checkpoint's directory.

use std::path::Path;

/// Name of the directory for `step`: `step-00001000`.
pub(super) fn name_of(step: u64) -> String {
    format!("step-{step:08}")
}

/// Step in the name of a checkpoint: `step-00001000`, with or without an extension.
pub(super) fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_stem()?.to_str()?.strip_prefix("step-")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}
