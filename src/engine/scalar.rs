//! Numbers from the device.

use burn::tensor::Tensor;

use crate::engine::error::EngineError;

/// The number in a `[1]` tensor; waits for the device.
pub(super) fn read(number: &Tensor<1>) -> Result<f64, EngineError> {
    Ok(read_all(number)?.first().copied().unwrap_or(f64::NAN))
}

/// All numbers of a tensor; waits for the device.
pub(super) fn read_all(numbers: &Tensor<1>) -> Result<Vec<f64>, EngineError> {
    Ok(numbers.clone().try_into_data()?.iter::<f64>().collect())
}
