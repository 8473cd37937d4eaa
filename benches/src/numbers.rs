//! Reproducible numbers without structure.

use burn::tensor::{Device, Tensor, TensorData};
use faer::Mat;

/// Numbers evenly spread over -1 … 1 (splitmix64).
pub(crate) struct Numbers {
    state: u64,
    device: Device,
}

impl Numbers {
    /// Numbers whose tensors are on the default CPU device.
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(&Device::flex(), seed)
    }

    /// Numbers whose tensors are on a device.
    pub(crate) fn on(device: &Device, seed: u64) -> Self {
        Self {
            state: seed,
            device: device.clone(),
        }
    }

    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// A tensor of numbers times `scale`.
    pub(crate) fn tensor<const D: usize>(&mut self, shape: [usize; D], scale: f64) -> Tensor<D> {
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| (scale * self.next()) as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    pub(crate) fn matrix(&mut self, rows: usize, columns: usize) -> Mat<f64> {
        Mat::from_fn(rows, columns, |_, _| self.next())
    }

    /// Token ids of a vocabulary.
    pub(crate) fn ids(&mut self, count: usize, vocabulary: usize) -> Vec<i64> {
        let mut id = || (0.5 * (self.next() + 1.0) * vocabulary as f64) as i64;
        (0..count).map(|_| id()).collect()
    }

    /// A second moment of `width` dimensions: symmetric and positive definite, with a decaying spectrum.
    pub(crate) fn moment(&mut self, width: usize) -> Mat<f64> {
        let mut samples = self.matrix(width, 2 * width);
        for row in 0..width {
            let scale = 1.0 / (1.0 + row as f64).sqrt();
            samples.row_mut(row).iter_mut().for_each(|value| *value *= scale);
        }
        &samples * samples.transpose()
    }
}
