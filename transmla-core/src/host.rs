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

/// A matrix on the CPU as it lies in memory, shared with its tensor and not copied: from one row or column to the next may be
/// any distance, so that transposes and parts are matrices as well.
#[derive(Debug, Clone)]
pub(crate) struct HostMatrix {
    tensor: <Flex as BackendTypes>::FloatTensorPrimitive,
    start: usize,
    row_stride: usize,
    column_stride: usize,
}

impl HostMatrix {
    /// `None` as for [`HostNumbers::of`], for a matrix without elements, and for one that is read backwards.
    pub fn of(tensor: &Tensor<2>) -> Option<Self> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        let tensor = tensor.clone().try_into_primitive::<Flex>().ok()?;
        let layout = tensor.layout();
        let ([rows, columns], [down, along]) = (layout.shape().dims(), *layout.strides().as_array()?);
        let (row_stride, column_stride) = (usize::try_from(down).ok()?, usize::try_from(along).ok()?);
        let start = layout.start_offset();
        let last = start + rows.checked_sub(1)? * row_stride + columns.checked_sub(1)? * column_stride;
        (last < tensor.storage::<f32>().len()).then_some(Self {
            start,
            row_stride,
            column_stride,
            tensor,
        })
    }

    /// The first element. Those of all rows and columns are in the same storage.
    pub fn first(&self) -> *const f32 {
        self.tensor.storage::<f32>()[self.start..].as_ptr()
    }

    /// Elements from one row to the next.
    pub fn row_stride(&self) -> isize {
        self.row_stride as isize
    }

    /// Elements from one column to the next.
    pub fn column_stride(&self) -> isize {
        self.column_stride as isize
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
