//! Inputs of a comparison: the same on all devices, from a fixed generator.

use burn::tensor::{DType, Tensor, TensorData};
use half::bf16;

use crate::config::Precision;
use crate::engine::compute::Compute;

/// A device and the number formats in which it computes.
#[derive(Debug, Clone)]
pub struct Place {
    /// The device and its threads.
    pub compute: Compute,
    /// Format of activations, and of the weights of matrix products.
    pub narrow: DType,
    /// Format of everything else: tables, norms, logits, losses, gradient sums.
    pub wide: DType,
}

impl Place {
    /// A device that computes in f32, except for what its precision makes narrower.
    pub fn new(compute: Compute) -> Self {
        let narrow = match compute.precision {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        Self { compute, narrow, wide: DType::F32 }
    }

    /// The CPU in double precision, with Burn's own operations: the reference for the CPU kernels.
    pub fn double() -> Self {
        Self { compute: Compute::cpu(), narrow: DType::F64, wide: DType::F64 }
    }

    /// Values for `dims` between `-size` and `size`, in the wide format.
    pub fn wide<const D: usize>(&self, dims: [usize; D], seed: u64, size: f32) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(numbers(dims.iter().product(), seed, size), dims),
            (&self.compute.device.device, self.wide),
        )
    }

    /// The same in the narrow format of this place. With `precision` bf16 all places get the same
    /// rounded values, so that the computation is compared and not the rounding of its input.
    pub fn narrow<const D: usize>(
        &self,
        dims: [usize; D],
        seed: u64,
        with: (f32, Precision),
    ) -> Tensor<D> {
        let (size, precision) = with;
        let mut values = numbers(dims.iter().product(), seed, size);
        if precision == Precision::Bf16 {
            for value in &mut values {
                *value = bf16::from_f32(*value).to_f32();
            }
        }
        Tensor::from_data(TensorData::new(values, dims), (&self.compute.device.device, self.narrow))
    }
}

/// Ids below `limit`.
pub(super) fn ids(count: usize, seed: u64, limit: usize) -> Vec<u32> {
    let id = |x: f32| (((x + 0.5) * limit as f32) as u32).min(limit as u32 - 1);
    numbers(count, seed, 0.5).into_iter().map(id).collect()
}

/// 1 for most of `count` targets, and 0 for every fifth.
pub(super) fn mask(count: usize) -> Vec<f32> {
    (0..count).map(|idx| f32::from(u8::from(idx % 5 != 4))).collect()
}

/// Pseudorandom numbers between `-size` and `size` (`SplitMix64`).
pub(super) fn numbers(count: usize, seed: u64, size: f32) -> Vec<f32> {
    let number = |idx: u64| {
        let mut bits = (idx + (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
    };
    (0..count as u64).map(number).collect()
}
