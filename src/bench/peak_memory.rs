//! Peak memory of this process, as Linux counts it.

use std::fs;

use crate::engine::allocator::give_back_freed_memory;
use crate::engine::device::ComputeDevice;
use crate::machine::memory::kilobytes;

/// A measurement in progress.
pub(super) struct PeakMemory {
    is_reset: bool,
}

/// The peak and how it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    /// Bytes; `None` if the system does not say.
    pub bytes: Option<u64>,
    /// How the peak was measured.
    pub source: &'static str,
}

impl PeakMemory {
    /// Releases free memory and resets the system's peak counter if it can be reset.
    pub(super) fn start() -> Self {
        give_back_freed_memory();
        // 5: resets the peak to the current usage (proc_pid_clear_refs(5)).
        Self { is_reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The peak since then.
    pub(super) fn read(&self, device: &ComputeDevice) -> Peak {
        if !device.is_cpu {
            let bytes = device.memory().map(|(_, reserved)| reserved);
            return Peak { bytes, source: "reserved in the device's memory pool" };
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let source = if self.is_reset {
            "VmHWM, reset before the measurement"
        } else {
            "VmHWM of the whole process"
        };
        Peak { bytes: kilobytes(&status, "VmHWM:"), source }
    }
}
