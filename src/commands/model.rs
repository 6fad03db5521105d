//! From the CHECKPOINT argument to a model on a device.

use crate::advice::Failure;
use crate::commands::devices::open_device;
use crate::commands::{Runs, find_checkpoint, parse_device};
use crate::engine::allocator::keep_freed_memory;
use crate::engine::compute::Compute;
use crate::engine::device::ComputeDevice;
use crate::engine::{LoadedModel, ModelFiles};
use crate::report::{tell, warn};

/// Finds the device that `--device` names, or the default.
///
/// # Errors
/// When this build or this machine lacks it.
pub fn choose_device(device: Option<&str>) -> Result<ComputeDevice, Failure> {
    keep_freed_memory();
    open_device(parse_device(device.unwrap_or("auto"))?)
}

/// Opens what `checkpoint` names for `compute`; warns about newer checkpoints that cannot be used.
///
/// # Errors
/// When there is no valid checkpoint.
pub fn open_model(
    checkpoint: &str,
    compute: &Compute,
    runs: &Runs,
) -> Result<LoadedModel, Failure> {
    let loaded = LoadedModel::open(&find_checkpoint(checkpoint, runs)?, compute)?;
    announce(&loaded.files);
    Ok(loaded)
}

/// The same without the weights.
///
/// # Errors
/// As [`open_model`].
pub fn find_model(checkpoint: &str, runs: &Runs) -> Result<ModelFiles, Failure> {
    let found = ModelFiles::find(&find_checkpoint(checkpoint, runs)?)?;
    announce(&found);
    Ok(found)
}

/// Says which checkpoints and which settings of the tokenizer are not used.
fn announce(files: &ModelFiles) {
    for rejected in files.origin.rejected() {
        warn(&format!("{} is not used: {}", rejected.path.display(), rejected.reason));
    }
    files.tokenizer.notes().iter().for_each(|note| tell(note));
}
