//! Number formats inside of an operation: what arrives in 16 bits is computed in f32 and leaves in 16 bits again.
//!
//! On a GPU the conversions are part of the operation's own kernel. f32 and f64 pass through as they are.

use burn::tensor::{DType, Tensor};

/// `tensor` in f32 if it is in a format of 16 bits.
pub fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if matches!(tensor.dtype(), DType::BF16 | DType::F16) { tensor.cast(DType::F32) } else { tensor }
}

/// `tensor` in the format `dtype`.
pub fn to_type<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}
