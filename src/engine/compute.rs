//! Where and how operations are computed: made once, and handed down with the model.
//!
//! Start at [`Compute::path`].

use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor};

use crate::config::Precision;
use crate::engine::device::ComputeDevice;
use crate::engine::kernels::team::Team;

/// A device, the threads of the CPU kernels, and the number format of the products.
#[derive(Debug, Clone)]
pub struct Compute {
    /// The device.
    pub device: ComputeDevice,
    /// Threads of the CPU kernels.
    pub team: Arc<Team>,
    /// Number format of the products of a training step.
    pub precision: Precision,
}

/// An implementation of an operation.
#[derive(Debug)]
pub enum Path<'a> {
    /// The CPU kernels, on these threads.
    Cpu(&'a Team),
    /// Composed of Burn's operations.
    Composed,
}

impl Compute {
    /// Starts as many threads as Burn's own operations use, a number that the configuration sets;
    /// none for a GPU.
    pub fn new(device: ComputeDevice, precision: Precision) -> Self {
        let threads = if device.is_cpu { rayon::current_num_threads() } else { 1 };
        Self { device, team: Arc::new(Team::new(threads)), precision }
    }

    /// The CPU in f32.
    pub fn cpu() -> Self {
        Self::new(ComputeDevice::cpu(), Precision::F32)
    }

    /// The implementation of an operation on `tensor`. Kernels are for f32 in the memory of this
    /// process.
    pub fn path<const D: usize>(&self, tensor: &Tensor<D>) -> Path<'_> {
        if tensor.dtype() == DType::F32 && tensor.device() == Device::flex() {
            Path::Cpu(&self.team)
        } else {
            Path::Composed
        }
    }
}
