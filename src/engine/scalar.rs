//! Reads single numbers from the device.

use burn::tensor::Tensor;

use crate::engine::error::EngineError;

/// The number in a `[1]` tensor; waits for the device.
pub(super) fn read(number: &Tensor<1>) -> Result<f64, EngineError> {
    let data = number.clone().try_into_data()?;
    Ok(data.iter::<f64>().next().unwrap_or(f64::NAN))
}
