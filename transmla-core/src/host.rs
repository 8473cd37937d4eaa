//! Tensors on the host.

use burn::backend::{BackendTypes, Flex};
use burn::tensor::{DType, Tensor};

use crate::error::CoreError;

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

/// The numbers of a tensor on the CPU, shared with the tensor and not copied.
#[derive(Debug, Clone)]
pub(crate) struct HostNumbers {
    tensor: <Flex as BackendTypes>::FloatTensorPrimitive,
    start: usize,
    end: usize,
}

impl HostNumbers {
    /// Those of a tensor, row-major; a copy is made of a view that skips or reorders them. `None` if the tensor is on another
    /// device, in another format than `f32`, or one whose gradients are recorded.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let tensor = tensor.try_into_primitive::<Flex>().ok()?;
        let tensor = match tensor.is_contiguous() {
            true => tensor,
            false => tensor.to_contiguous(),
        };
        let (start, end) = tensor.layout().contiguous_offsets()?;
        Some(Self { tensor, start, end })
    }

    /// All of them.
    pub fn as_slice(&self) -> &[f32] {
        &self.tensor.storage::<f32>()[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn views_are_read_in_their_own_order() {
        let numbers: Vec<f32> = (0..24).map(|number| number as f32).collect();
        let tensor = Tensor::<2>::from_data(TensorData::new(numbers.clone(), [4, 6]), &Device::flex());
        let whole = HostNumbers::of(tensor.clone()).unwrap();
        assert_eq!(whole.as_slice(), numbers);
        // Nothing is copied of a tensor or of whole rows of one.
        let rows = HostNumbers::of(tensor.clone().narrow(0, 1, 2)).unwrap();
        assert_eq!(rows.as_slice().as_ptr(), whole.as_slice()[6..].as_ptr());
        assert_eq!(rows.as_slice(), &numbers[6..18]);
        for view in [tensor.clone().transpose(), tensor.clone().narrow(1, 2, 3)] {
            let found = HostNumbers::of(view.clone()).unwrap();
            assert_eq!(found.as_slice(), host_values(view).unwrap());
        }
        assert!(HostNumbers::of(tensor.clone().cast(DType::F64)).is_none());
        assert!(HostNumbers::of(tensor.autodiff()).is_none());
    }
}
