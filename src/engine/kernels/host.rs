//! Access to the memory of a tensor as a slice, and back.

use std::mem::MaybeUninit;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::rows::for_each;

/// Whether these kernels support `tensor`: f32 in the memory of this process.
pub fn on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}

/// The values of an f32 tensor in this process, in row-major order.
pub(super) struct Floats(FlexTensor);

impl Floats {
    /// The values of `tensor`; copied only if they are not contiguous.
    ///
    /// # Panics
    /// When the tensor is not [`on_host`].
    pub(super) fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        let tensor =
            tensor.try_into_primitive::<Flex>().expect("the caller checked where the tensor is");
        let lies_in_order = tensor.as_slice::<f32>().is_some();
        Self(if lies_in_order { tensor } else { tensor.to_contiguous() })
    }

    /// The values.
    ///
    /// # Panics
    /// Never: they are contiguous.
    pub(super) fn values(&self) -> &[f32] {
        self.0.as_slice().expect("the values are contiguous")
    }

    /// The values, mutable; copied first if another tensor shares them.
    ///
    /// # Panics
    /// Never: they are f32.
    pub(super) fn into_vec(self) -> Vec<f32> {
        self.0.into_data().try_into_vec().expect("the values are f32")
    }
}

/// A tensor that takes over `values` without a copy.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

/// Token ids of a tensor in this process.
pub(super) fn ids<const D: usize>(tensor: Tensor<D, Int>) -> Vec<u32> {
    tensor.into_data().iter::<i64>().map(|id| id as u32).collect()
}

/// Values zeroed per block.
const BLOCK: usize = 8192;

/// A vector of `length` zeros that a kernel will overwrite.
///
/// Zeroed although all of it is overwritten, since uninitialized memory would require a guarantee
/// from every kernel; by all threads, so that each finds its part in its cache.
#[expect(unsafe_code, reason = "the standard library zeroes memory on one thread only")]
pub(super) fn buffer(length: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    let blocks = values.spare_capacity_mut()[..length].chunks_mut(BLOCK).collect();
    for_each(blocks, |block: &mut [MaybeUninit<f32>]| block.fill(MaybeUninit::new(0.0)));
    // SAFETY: the blocks cover the first `length` values, which are within the capacity, and each
    // was filled.
    unsafe { values.set_len(length) };
    values
}
