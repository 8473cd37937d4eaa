//! The one statistic: the second moment of a layer's inputs.

use burn::tensor::Tensor;
use faer::{Mat, MatRef};
use transmla_core::{CoreError, host_values};

/// `C = Σ x xᵀ` over all tokens, in f64, with each input extended by a constant 1 if the projections have biases.
///
/// Every matrix of the conversion is a quadratic form of it: keys `W_k x` have the moment `W_k C W_kᵀ`, and so on
/// (ARCHITECTURE.md, invariant 5).
///
/// Products of a batch are taken in f32 on the device and added up in f64 on the host, `[width, width]` numbers however
/// many tokens come.
#[derive(Debug, Clone)]
pub struct SecondMoment {
    width: usize,
    constant: bool,
    sum: Mat<f64>,
    tokens: u64,
}

impl SecondMoment {
    /// An empty moment of inputs `width` wide; with `constant` one more dimension, always 1, is appended.
    pub fn new(width: usize, constant: bool) -> Self {
        let size = width + usize::from(constant);
        Self {
            width,
            constant,
            sum: Mat::zeros(size, size),
            tokens: 0,
        }
    }

    /// Adds inputs `[rows, width]`.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails, [`CoreError::Shape`] for another width.
    pub fn add(&mut self, inputs: &Tensor<2>) -> Result<(), CoreError> {
        let [rows, width] = inputs.dims();
        if width != self.width {
            return Err(CoreError::Shape {
                name: "calibration inputs".into(),
                expected: vec![rows, self.width],
                found: vec![rows, width],
            });
        }
        let product = host_values(inputs.clone().transpose().matmul(inputs.clone()))?;
        for (column, values) in product.chunks_exact(width).enumerate() {
            // Symmetric, so rows serve as columns, which is how faer stores them.
            for (target, value) in self.sum.col_as_slice_mut(column).iter_mut().zip(values) {
                *target += f64::from(*value);
            }
        }
        if self.constant {
            let sums = host_values(inputs.clone().sum_dim(0))?;
            for (index, value) in sums.iter().enumerate() {
                self.sum[(index, width)] += f64::from(*value);
                self.sum[(width, index)] += f64::from(*value);
            }
            self.sum[(width, width)] += rows as f64;
        }
        self.tokens += rows as u64;
        Ok(())
    }

    /// Adds another moment of the same inputs.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn merge(&mut self, other: &Self) {
        self.sum += &other.sum;
        self.tokens += other.tokens;
    }

    /// The sum, `[width, width]`, or one more with the constant.
    pub fn matrix(&self) -> MatRef<'_, f64> {
        self.sum.as_ref()
    }

    /// Number of inputs added.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether no NaN or infinity was added.
    pub fn is_finite(&self) -> bool {
        self.sum.is_all_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    proptest! {
        /// Two batches, with a constant, against the definition.
        #[test]
        fn is_the_sum_of_outer_products(values in prop::collection::vec(-2.0f32..2.0, 15)) {
            let rows: Vec<&[f32]> = values.chunks(3).collect();
            let mut moment = SecondMoment::new(3, true);
            for part in [&rows[..2], &rows[2..]] {
                let data = TensorData::new(part.concat(), [part.len(), 3]);
                moment.add(&Tensor::from_data(data, &Device::flex())).unwrap();
            }
            prop_assert_eq!(moment.tokens(), 5);
            for i in 0..4 {
                for j in 0..4 {
                    let at = |row: &[f32], k: usize| row.get(k).map_or(1.0, |v| f64::from(*v));
                    let expected: f64 = rows.iter().map(|row| at(row, i) * at(row, j)).sum();
                    prop_assert!((moment.matrix()[(i, j)] - expected).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn another_width_is_an_error() {
        let inputs = Tensor::zeros([2, 4], &Device::flex());
        assert!(SecondMoment::new(3, false).add(&inputs).is_err());
    }
}
