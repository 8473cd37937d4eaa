//! Reading tensors of a checkpoint onto a device.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::{Checkpoint, CheckpointError};

/// Reads tensors onto a device, in `f32`.
pub trait ReadTensor {
    /// A matrix of shape `[rows, columns]`.
    ///
    /// # Errors
    /// The tensor is absent, has another shape or number format, or holds NaN or infinity.
    fn matrix(&self, name: &str, expected: [usize; 2], device: &Device) -> Result<Tensor<2>, CheckpointError>;

    /// A vector.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    fn vector(&self, name: &str, length: usize, device: &Device) -> Result<Tensor<1>, CheckpointError>;
}

impl ReadTensor for Checkpoint {
    fn matrix(&self, name: &str, expected: [usize; 2], device: &Device) -> Result<Tensor<2>, CheckpointError> {
        let values = self.values(name, &expected)?;
        Ok(Tensor::from_data(TensorData::new(values, expected), device))
    }

    fn vector(&self, name: &str, length: usize, device: &Device) -> Result<Tensor<1>, CheckpointError> {
        let values = self.values(name, &[length])?;
        Ok(Tensor::from_data(TensorData::new(values, [length]), device))
    }
}
