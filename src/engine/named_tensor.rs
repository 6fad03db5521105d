//! A named tensor: a weight, or a moment of a weight.

use burn::tensor::Tensor;

/// A tensor with its name in files.
///
/// Its values are kept as a matrix (a norm's scale as one row), since no computation depends on the
/// original shape.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Hugging Face's name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Its shape in files.
    pub dims: Vec<usize>,
    /// Its values, `[rows, columns]`.
    pub values: Tensor<2>,
}

/// Rows and columns of the matrix that holds a tensor of shape `dims`: a norm's `[D]` is one row.
pub fn matrix_dims(dims: &[usize]) -> [usize; 2] {
    let columns = dims.last().copied().unwrap_or(1);
    [dims.iter().product::<usize>() / columns.max(1), columns]
}
