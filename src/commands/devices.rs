//! From a choice of device to the device, and the process that asks the drivers.

use crate::advice::Failure;
use crate::config::DeviceChoice;
use crate::engine::device::{BUILT_IN, ComputeDevice, find_device, list_gpus};
use crate::machine::devices::{OpenedGpu, ProbeLine, resolve};
use crate::report::print;

/// The device that `choice` selects on this machine.
///
/// # Errors
/// When this build or this machine lacks it.
pub fn open_device(choice: DeviceChoice) -> Result<ComputeDevice, Failure> {
    Ok(find_device(resolve(choice, BUILT_IN)?.0)?)
}

/// Prints line by line which devices the drivers list and which can be opened; the parent process
/// is [`Probe::of_this_machine`](crate::machine::devices::Probe::of_this_machine).
pub fn answer() {
    let say = |line: &ProbeLine| {
        if let Ok(text) = serde_json::to_string(line) {
            // The parent process notices a missing answer.
            let _ = print(&(text + "\n"));
        }
    };
    let gpus = list_gpus();
    for gpu in &gpus {
        say(&ProbeLine::Listed(gpu.to_string()));
    }
    for gpu in gpus {
        if let Some(identity) = find_device(gpu).ok().and_then(|device| device.identity()) {
            let opened = OpenedGpu {
                description: identity.description,
                is_card: identity.is_card,
                has_bf16: identity.has_bf16,
            };
            say(&ProbeLine::Opened(gpu.to_string(), opened));
        }
    }
}
