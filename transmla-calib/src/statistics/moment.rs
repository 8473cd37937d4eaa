//! The second moment of a layer's inputs.

use transmla_core::burn::tensor::Tensor;
use transmla_core::kernels::matrix_product;
use transmla_core::{CoreError, host_values};
use transmla_lowrank::faer::{Mat, MatRef};

/// The uncentred second moment `C = Σ x xᵀ` of a layer's inputs x over all tokens, in f64.
///
/// Every statistic of a linear projection is a quadratic form of it: keys `W_k x` have the moment `W_k C W_kᵀ`. If the
/// projections have biases, each input is extended by a constant 1, so that the bias is one more column of the weights.
///
/// Products are computed in f32 on the device, batch by batch, and summed in f64 on the host. The memory is that of one
/// `[width, width]` matrix, whatever the number of tokens.
#[derive(Debug, Clone)]
pub struct SecondMoment {
    width: usize,
    constant: bool,
    sum: Mat<f64>,
    tokens: u64,
}

impl SecondMoment {
    /// The moment of no inputs, for inputs of `width` numbers; with `constant`, each is extended by a 1.
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
    /// [`CoreError::Shape`] for another width, [`CoreError::Execution`] if the device fails.
    pub fn add(&mut self, inputs: &Tensor<2>) -> Result<(), CoreError> {
        let [rows, width] = inputs.dims();
        if width != self.width {
            return Err(CoreError::Shape {
                name: "calibration inputs".into(),
                expected: vec![rows, self.width],
                found: vec![rows, width],
            });
        }
        let product = host_values(matrix_product(inputs.clone().transpose(), inputs.clone()))?;
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

    /// Adds the moment of further inputs.
    ///
    /// # Errors
    /// [`CoreError::Shape`] if the widths differ, or one moment has the constant and the other does not.
    pub fn merge(&mut self, other: &Self) -> Result<(), CoreError> {
        let shape = |moment: &Self| vec![moment.sum.nrows(), moment.sum.ncols()];
        if (self.width, self.constant) != (other.width, other.constant) {
            return Err(CoreError::Shape {
                name: "second moment".into(),
                expected: shape(self),
                found: shape(other),
            });
        }
        self.sum += &other.sum;
        self.tokens += other.tokens;
        Ok(())
    }

    /// The moment, `[width, width]`, or one wider with the constant.
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
    use proptest::prelude::*;
    use transmla_core::burn::tensor::{Device, TensorData};

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

    #[test]
    fn moments_of_the_same_inputs_are_merged() {
        let device = Device::flex();
        let of = |values: [f32; 4]| {
            let mut moment = SecondMoment::new(2, true);
            moment
                .add(&Tensor::from_data(TensorData::new(values.to_vec(), [2, 2]), &device))
                .unwrap();
            moment
        };
        let mut merged = of([1.0, 2.0, 3.0, 4.0]);
        merged.merge(&of([5.0, 6.0, 7.0, 8.0])).unwrap();
        assert_eq!(merged.tokens(), 4);
        assert_eq!(merged.matrix()[(0, 0)], 1.0 + 9.0 + 25.0 + 49.0);
        assert_eq!((merged.matrix()[(0, 2)], merged.matrix()[(2, 2)]), (16.0, 4.0));
        for other in [
            SecondMoment::new(3, true),
            SecondMoment::new(2, false),
            SecondMoment::new(3, false),
        ] {
            assert!(matches!(merged.merge(&other), Err(CoreError::Shape { .. })));
        }
        assert_eq!(merged.tokens(), 4);
    }
}
