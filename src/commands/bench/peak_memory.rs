//! The most memory that this process has used, as Linux counts it.

use std::fs;

use crate::engine::allocator::give_back_freed_memory;
use crate::engine::device::ComputeDevice;

/// A measurement that has begun.
pub(super) struct PeakMemory {
    is_reset: bool,
}

/// What was found, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    /// Bytes; `None` if the system does not say.
    pub(super) bytes: Option<u64>,
    /// How they were got.
    pub(super) source: &'static str,
}

impl PeakMemory {
    /// Gives back what is free, and lets the system count anew if it allows that.
    pub(super) fn start() -> Self {
        give_back_freed_memory();
        // 5: the peak becomes what is used now (proc_pid_clear_refs(5)).
        Self { is_reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The peak since then.
    pub(super) fn read(&self, device: &ComputeDevice) -> Peak {
        if !device.is_cpu {
            let bytes = device.memory().map(|(_, reserved)| reserved);
            return Peak { bytes, source: "reserved in the device's memory pool" };
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        let source = if self.is_reset { "VmHWM, reset before the stage" } else { "VmHWM of the whole process" };
        Peak { bytes: kilobytes.map(|kilobytes| kilobytes * 1024), source }
    }
}
