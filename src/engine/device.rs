//! Finds the device to compute on. The only module with knowledge of the backends.
//!
//! Listing or opening a GPU calls its driver, which may hang or kill the process:
//! `commands/devices.rs` probes it in a separate process first. Start at [`find_device`].

use burn::tensor::{DType, Device, ExecutionError};
use thiserror::Error;

use crate::advice::{Advice, Audience, FAILED, USAGE};
use crate::config::{DeviceChoice, Precision};

/// A device that this build supports and this machine has.
#[derive(Debug, Clone)]
pub struct ComputeDevice {
    /// Burn's device, without autodiff.
    pub device: Device,
    /// Name in the run's header.
    pub description: String,
    /// Whether the host computes, so that reading a number is free.
    pub is_cpu: bool,
    /// The same device for CubeCL, if it is a wgpu device.
    #[cfg(feature = "wgpu")]
    wgpu: Option<burn::cubecl::Device>,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// The build lacks the feature.
    #[error("device \"{device}\" is not part of this build of patchtui")]
    NotBuilt {
        /// Requested device.
        device: String,
        /// The cargo feature that adds it.
        feature: &'static str,
    },
    /// The machine has no such device.
    #[error("device \"{device}\" was not found: this machine has {} of that kind", if *.found == 0 { "none".to_owned() } else { .found.to_string() })]
    NotFound {
        /// Requested device.
        device: String,
        /// How many devices of that kind there are.
        found: usize,
    },
}

/// Why a device does not support bf16.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PrecisionError {
    /// The CPU would support it without any benefit.
    #[error(
        "training.precision = \"bf16\" is not supported on the CPU: most CPUs multiply bf16 no \
         faster than f32, so it would cost accuracy and save no time"
    )]
    Cpu,
    /// The GPU only stores it.
    #[error("{device} does not compute in bf16: {reason}")]
    Gpu {
        /// The device.
        device: String,
        /// Why.
        reason: &'static str,
    },
}

impl Advice for PrecisionError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::Cpu if cfg!(feature = "cuda") => {
                "use training.precision = \"f32\", or --device cuda".into()
            }
            Self::Cpu => "use training.precision = \"f32\"; bf16 needs an NVIDIA GPU and a build \
                          with --features cuda"
                .into(),
            Self::Gpu { .. } => "use training.precision = \"f32\"".into(),
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

impl Advice for DeviceError {
    fn hint(&self, _: Audience<'_>) -> String {
        match self {
            Self::NotBuilt { feature, .. } => format!(
                "build with `cargo build --release --features {feature}`, or use --device cpu"
            ),
            Self::NotFound { found: 0, .. } => "check the GPU driver, or use --device cpu".into(),
            Self::NotFound { found, .. } => {
                format!("the highest index is {}; --device auto picks a device", found - 1)
            }
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NotBuilt { .. } => USAGE,
            Self::NotFound { .. } => FAILED,
        }
    }
}

/// The kinds of devices in this build, in order of preference.
pub const BUILT_IN: &[&str] = &[
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "wgpu")]
    "wgpu",
    "cpu",
];

/// Whether shaders are compiled through SPIR-V, which gave wrong results on a software driver,
/// instead of WGSL.
pub const USES_SPIRV: bool = cfg!(feature = "vulkan");

/// Description of a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The GPU, its compilation target, and the driver if known; untrusted text.
    pub description: String,
    /// Whether it is real hardware and not a software renderer.
    pub is_card: bool,
    /// Whether it supports bf16.
    pub has_bf16: bool,
    /// Whether the description identifies the driver version; through wgpu it does not.
    pub names_driver: bool,
}

/// Every GPU that the drivers list, in the order of [`BUILT_IN`]. Opens none.
pub fn list_gpus() -> Vec<DeviceChoice> {
    #[cfg_attr(
        not(any(feature = "cuda", feature = "wgpu")),
        expect(unused_mut, reason = "this build knows no GPU")
    )]
    let mut found = Vec::new();
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    prepare_gpus();
    #[cfg(feature = "cuda")]
    found.extend(
        (0..Device::enumerate(burn::tensor::DeviceType::Cuda).len())
            .map(|index| DeviceChoice::Cuda(Some(index))),
    );
    #[cfg(feature = "wgpu")]
    found.extend(
        (0..Device::enumerate(burn::tensor::DeviceType::Wgpu).len())
            .map(|index| DeviceChoice::Wgpu(Some(index))),
    );
    found
}

/// Finds the device that `choice` names. Does not open a GPU: drivers only list their devices.
///
/// # Errors
/// When this build or this machine lacks it.
pub fn find_device(choice: DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(ComputeDevice::cpu()),
        DeviceChoice::Cuda(index) => cuda(index, &choice),
        DeviceChoice::Wgpu(index) => wgpu(index, &choice),
        DeviceChoice::Auto => Ok(cuda(None, &choice)
            .or_else(|_| wgpu(None, &choice))
            .unwrap_or_else(|_| ComputeDevice::cpu())),
    }
}

impl ComputeDevice {
    /// The CPU.
    pub fn cpu() -> Self {
        Self {
            device: Device::flex(),
            description: "cpu".into(),
            is_cpu: true,
            #[cfg(feature = "wgpu")]
            wgpu: None,
        }
    }

    /// Checks that the device supports `precision`; opens a GPU.
    ///
    /// # Errors
    /// With the reason, if it does not.
    pub fn check_precision(&self, precision: Precision) -> Result<(), PrecisionError> {
        let device = self.description.clone();
        match precision {
            Precision::F32 => Ok(()),
            Precision::Bf16 if self.is_cpu => Err(PrecisionError::Cpu),
            Precision::Bf16 if device.starts_with("wgpu") => Err(PrecisionError::Gpu {
                device,
                reason: "wgpu stores bf16 but cannot compute in it",
            }),
            Precision::Bf16 if self.device.supports_dtype(DType::BF16) => Ok(()),
            Precision::Bf16 => {
                Err(PrecisionError::Gpu { device, reason: "it is older than Ampere" })
            }
        }
    }

    /// Bytes that Burn's allocator holds on the device, in use and reserved; `None` if unknown.
    pub fn memory(&self) -> Option<(u64, u64)> {
        self.device.memory_pool_usage().map(|usage| (usage.bytes_in_use, usage.bytes_reserved))
    }

    /// Skips Burn's measurement of the memory bandwidth of a wgpu device, made before it chooses
    /// kernels; opens the device. No effect on others.
    ///
    /// The measurement needs two buffers of up to a gigabyte. If they do not fit, wgpu panics on
    /// the device's own thread, and that panic cannot be distinguished from one that corrupted
    /// a result. Without it a few more kernels are tried.
    pub fn spare_memory(&self) {
        #[cfg(feature = "wgpu")]
        if let Some(device) = &self.wgpu {
            use burn::cubecl::throughput::{
                MemoryAccess, MemorySpec, ThroughputCache, ThroughputKey, ThroughputMode,
                ThroughputValue, working_set_sweep,
            };
            /// Larger than any buffer.
            const MOST_BYTES: u64 = 1 << 40;
            let client = device.client();
            let cache = ThroughputCache::get_for_device(client.name(), client.properties());
            let mut known = cache.lock();
            for access in [MemoryAccess::Copy, MemoryAccess::Read, MemoryAccess::Write] {
                for bytes in working_set_sweep(MOST_BYTES) {
                    let key = ThroughputKey {
                        mode: ThroughputMode::Memory(MemorySpec::new(access, bytes)),
                    };
                    if known.get(&key).is_none() {
                        // Stands for a bandwidth that cannot be measured.
                        known.insert(key, ThroughputValue::ZERO);
                    }
                }
            }
        }
    }

    /// Description of a GPU; opens it. `None` for the CPU.
    pub fn identity(&self) -> Option<Identity> {
        #[cfg(any(feature = "cuda", feature = "wgpu"))]
        if let Some(identity) = self.device.identity() {
            let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
            let driver = driver
                .lines()
                .next()
                .filter(|_| self.description.starts_with("cuda"))
                .unwrap_or_default();
            let description = [identity.name.as_str(), identity.fingerprint.as_str(), driver]
                .into_iter()
                .filter(|part| !part.is_empty());
            return Some(Identity {
                description: description.collect::<Vec<_>>().join(", "),
                is_card: identity.physical.is_some(),
                has_bf16: self.check_precision(Precision::Bf16).is_ok(),
                names_driver: !driver.is_empty(),
            });
        }
        None
    }
}

/// The device's message in one line: Burn puts it below a heading, over several lines.
pub(super) fn device_reason(error: &ExecutionError) -> String {
    let text = error.to_string();
    let reason = text.split_once("Caused by:").map_or(text.as_str(), |(_, reason)| reason);
    reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Keeps tuned and compiled kernels in the user's cache folder, so that only the first run of a
/// shape pays for them; call before a GPU is used. CUBECL environment variables override it, files
/// in the current folder do not.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn prepare_gpus() {
    use burn::cubecl::config::cache::CacheConfig;
    use burn::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut config = CubeClRuntimeConfig::default();
    config.compilation.cache = true;
    config.environment.path = crate::engine::user_cache::user_cache()
        .map_or(CacheConfig::Global, |folder| CacheConfig::Directory(folder.join("kernels")));
    // Weights and moments have the same few sizes during a whole run.
    config.memory.persistent_memory = burn::cubecl::config::memory::PersistentMemory::SizeMatch;
    // False if it was already set, with the same content.
    let _ = CubeClRuntimeConfig::try_set(config.override_from_env());
}

#[cfg(feature = "cuda")]
fn cuda(index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    prepare_gpus();
    // Enumeration only loads the driver; using a missing device would panic on the device's own
    // thread.
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda).len();
    let index = index.unwrap_or(0);
    if index >= found {
        return Err(DeviceError::NotFound { device: choice.to_string(), found });
    }
    let device = Device::new(burn_cuda::CudaDevice::new(index));
    Ok(ComputeDevice {
        device,
        description: format!("cuda:{index}"),
        is_cpu: false,
        #[cfg(feature = "wgpu")]
        wgpu: None,
    })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    Err(DeviceError::NotBuilt { device: choice.to_string(), feature: "cuda" })
}

#[cfg(feature = "wgpu")]
fn wgpu(index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    // Without burn's feature `vulkan` shaders are WGSL. Through SPIR-V they computed wrong matrix
    // products on software Vulkan.
    prepare_gpus();
    let is_wgpu = |device: &burn::cubecl::Device| device.runtime() == burn::cubecl::RuntimeId::Wgpu;
    let found: Vec<_> = burn::cubecl::Device::enumerate_all().into_iter().filter(is_wgpu).collect();
    let missing = || DeviceError::NotFound { device: choice.to_string(), found: found.len() };
    let device = match index {
        Some(index) => found.get(index).cloned().ok_or_else(missing)?,
        None if found.is_empty() => return Err(missing()),
        // The driver's own default: a discrete GPU before an integrated one before a software
        // renderer.
        None => burn_wgpu::WgpuDevice::default().into(),
    };
    let description = index.map_or_else(|| "wgpu".to_owned(), |index| format!("wgpu:{index}"));
    Ok(ComputeDevice {
        device: Device::new(device.clone()),
        description,
        is_cpu: false,
        wgpu: Some(device),
    })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    Err(DeviceError::NotBuilt { device: choice.to_string(), feature: "wgpu" })
}
