//! Tensors as the slices that the CPU kernels work on, and back.

use std::ops::Deref;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{Device, Tensor, TensorData};

use crate::engine::kernels::matrix::Matrix;

/// The values of an f32 tensor in this process, in row-major order.
pub(in crate::engine) struct Floats(FlexTensor);

impl Floats {
    /// The values of `tensor`; copied only if they are not contiguous.
    ///
    /// # Panics
    /// When the tensor is not on the CPU path.
    pub(in crate::engine) fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        Self::from(tensor.clone())
    }
}

impl<const D: usize> From<Tensor<D>> for Floats {
    fn from(tensor: Tensor<D>) -> Self {
        let tensor =
            tensor.try_into_primitive::<Flex>().expect("the path of the operation is the CPU's");
        let lies_in_order = tensor.as_slice::<f32>().is_some();
        Self(if lies_in_order { tensor } else { tensor.to_contiguous() })
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice().expect("the values are contiguous")
    }
}

/// The values of a matrix, and its shape.
pub(super) struct Rows {
    values: Floats,
    /// Rows and columns.
    pub(super) dims: [usize; 2],
}

impl Rows {
    /// As [`Floats::of`].
    pub(super) fn of(tensor: &Tensor<2>) -> Self {
        Self { values: Floats::of(tensor), dims: tensor.dims() }
    }

    /// As the kernels see it.
    pub(super) fn matrix(&self) -> Matrix<'_> {
        Matrix::new(&self.values, self.dims[0], self.dims[1])
    }
}

/// The values of `tensor`, to be changed; copied first if another tensor shares them.
pub(in crate::engine) fn into_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    Floats::from(tensor).0.into_data().try_into_vec().expect("the values are f32")
}

/// A tensor that takes over `values` without a copy.
pub(in crate::engine) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, dims), &Device::flex())
}

/// `tensor` after `change`, in the same memory if no other tensor shares it.
pub(super) fn changed<const D: usize>(
    tensor: Tensor<D>,
    change: impl FnOnce(&mut [f32]),
) -> Tensor<D> {
    let dims = tensor.dims();
    let mut values = into_vec(tensor);
    change(&mut values);
    self::tensor(values, dims)
}
