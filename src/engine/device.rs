//! Finds the device that computes. The only module that knows the backends.

use burn::tensor::Device;
use thiserror::Error;

use crate::config::DeviceChoice;

/// A device that this build supports and this machine has.
#[derive(Debug, Clone)]
pub struct ComputeDevice {
    /// Burn's device, without autodiff.
    pub device: Device,
    /// Name for the run's header.
    pub description: String,
    /// Whether the host computes, so that reading a number costs nothing.
    pub is_cpu: bool,
}

/// Why a device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// The feature was left out when the program was built.
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

impl DeviceError {
    /// What the user can type next.
    pub fn hint(&self) -> String {
        match self {
            Self::NotBuilt { feature, .. } => format!("build with `cargo build --release --features {feature}`, or use --device cpu"),
            Self::NotFound { found: 0, .. } => "check the GPU driver, or use --device cpu".into(),
            Self::NotFound { found, .. } => format!("the highest index is {}; --device auto picks a device", found - 1),
        }
    }
}

/// Finds the device that `choice` names. Opens nothing on a GPU: drivers only list their devices.
///
/// # Errors
/// When this build or this machine lacks it.
pub fn find_device(choice: DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(cpu()),
        DeviceChoice::Cuda(index) => cuda(index, &choice),
        DeviceChoice::Wgpu(index) => wgpu(index, &choice),
        DeviceChoice::Auto => Ok(cuda(None, &choice).or_else(|_| wgpu(None, &choice)).unwrap_or_else(|_| cpu())),
    }
}

fn cpu() -> ComputeDevice {
    ComputeDevice { device: Device::flex(), description: "cpu".into(), is_cpu: true }
}

#[cfg(feature = "cuda")]
fn cuda(index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    // Enumerating only loads the driver; using a missing device would panic on the device's own thread.
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda).len();
    let index = index.unwrap_or(0);
    if index >= found {
        return Err(DeviceError::NotFound { device: choice.to_string(), found });
    }
    let device = Device::new(burn_cuda::CudaDevice::new(index));
    Ok(ComputeDevice { device, description: format!("cuda:{index}"), is_cpu: false })
}

#[cfg(not(feature = "cuda"))]
fn cuda(_index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    Err(DeviceError::NotBuilt { device: choice.to_string(), feature: "cuda" })
}

#[cfg(feature = "wgpu")]
fn wgpu(index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    // Without burn's feature `vulkan`: shaders that go through SPIR-V computed wrong matrix products on software Vulkan, those in
    // WGSL did not.
    let found = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
    let missing = || DeviceError::NotFound { device: choice.to_string(), found: found.len() };
    let device = match index {
        Some(index) => found.get(index).cloned().ok_or_else(missing)?,
        None if found.is_empty() => return Err(missing()),
        // The driver's own default: a discrete GPU before an integrated one before software.
        None => Device::new(burn_wgpu::WgpuDevice::default()),
    };
    let description = index.map_or_else(|| "wgpu".to_owned(), |index| format!("wgpu:{index}"));
    Ok(ComputeDevice { device, description, is_cpu: false })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu(_index: Option<usize>, choice: &DeviceChoice) -> Result<ComputeDevice, DeviceError> {
    Err(DeviceError::NotBuilt { device: choice.to_string(), feature: "wgpu" })
}
