//! Helpers for the tests of the operations: pseudorandom numbers, and comparison with the gradients
//! that Burn derives.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// The types for which every operation is compared.
pub(crate) fn dtypes() -> [DType; 2] {
    [DType::F32, DType::F64]
}

/// Pseudorandom numbers in -1..1.
pub(crate) fn noise<const D: usize>(dims: [usize; D], seed: u64, dtype: DType) -> Tensor<D> {
    let number = |idx: u64| {
        let mixed = (idx + (seed << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f32
            / (1 << 23) as f32
            - 1.0
    };
    let values: Vec<f32> = (0..dims.iter().product::<usize>() as u64).map(number).collect();
    Tensor::<D>::from_data(TensorData::new(values, dims), &Device::flex()).cast(dtype)
}

/// Pseudorandom ids below `limit`.
pub(crate) fn random_ids(count: usize, limit: u32) -> Vec<u32> {
    (0..count as u32).map(|idx| (idx * 7 + idx * idx / 3) % limit).collect()
}

/// A leaf whose gradient Burn derives.
pub(crate) fn recorded<const D: usize>(tensor: &Tensor<D>) -> Tensor<D> {
    Tensor::from_inner(tensor.clone()).require_grad()
}

/// Asserts that tensors are equal up to rounding, relative to the largest expected value.
#[track_caller]
pub(crate) fn assert_same<const D: usize>(what: &str, found: Tensor<D>, expected: Tensor<D>) {
    assert_same_at(what, 0.0, found, expected);
}

/// The same, relative to `scale` if that is larger: for differences of values of this size, which
/// may cancel out.
#[track_caller]
pub(crate) fn assert_same_at<const D: usize>(
    what: &str,
    scale: f64,
    found: Tensor<D>,
    expected: Tensor<D>,
) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    assert_eq!(found.dtype(), expected.dtype(), "{what}");
    let tolerance = if expected.dtype() == DType::F64 { 1e-12 } else { 1e-5 };
    let values = |tensor: Tensor<D>| tensor.into_data().iter::<f64>().collect::<Vec<_>>();
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(scale, |a, b| a.max(b.abs()));
    assert!(found.iter().all(|value| value.is_finite()), "{what}: not finite");
    let worst = found.iter().zip(&expected).fold(0.0_f64, |a, (x, y)| a.max((x - y).abs()));
    assert!(
        worst <= tolerance * largest,
        "{what}: differs by {worst:e} where values are up to {largest:e}"
    );
}
