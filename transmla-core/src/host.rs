//! Tensors back on the host.

use burn::tensor::Tensor;

use crate::CoreError;

/// A tensor's values, row-major.
///
/// # Errors
/// [`CoreError::Execution`] if the device fails or the numbers are not `f32`.
pub fn host_values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, CoreError> {
    let data = tensor
        .try_into_data()
        .map_err(|error| CoreError::Execution(error.to_string()))?;
    data.try_into_vec::<f32>()
        .map_err(|error| CoreError::Execution(error.to_string()))
}
