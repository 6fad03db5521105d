//! Number formats inside an operation: 16-bit input is computed in f32 and converted back to 16
//! bits.
//!
//! On a GPU the conversions are fused into the operation's own kernel. f32 and f64 pass through
//! unchanged.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// `tensor` in f32 if it is in a 16-bit format.
pub fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if matches!(tensor.dtype(), DType::BF16 | DType::F16) {
        tensor.cast(DType::F32)
    } else {
        tensor
    }
}

/// `tensor` in the format `dtype`.
pub fn to_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

/// Token ids on `device`.
pub fn id_tensor<const D: usize>(ids: &[u32], dims: [usize; D], device: &Device) -> Tensor<D, Int> {
    let ids: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    Tensor::from_data(TensorData::new(ids, dims), device)
}
