//! AdamW on weights in units of their own size.

use burn::tensor::Tensor;

/// Betas of Adam (Kingma and Ba, arXiv 1412.6980); the second is that of short trainings.
pub(crate) const BETAS: (f64, f64) = (0.9, 0.95);

/// Keeps a gradient that is 0 everywhere from being divided by 0.
pub(crate) const EPSILON: f64 = 1e-12;

/// The moments of one matrix.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    /// Mean of gradients.
    pub first: Tensor<2>,
    /// Mean of their squares.
    pub second: Tensor<2>,
}

impl Moments {
    /// Of a matrix of this shape before the first step.
    pub fn of(weights: &Tensor<2>) -> Self {
        Self {
            first: weights.zeros_like(),
            second: weights.zeros_like(),
        }
    }

    /// Takes a gradient in, and gives the direction of step `count`, from 1 on, against which weights go.
    pub fn direction(&mut self, gradient: Tensor<2>, count: usize) -> Tensor<2> {
        let (b1, b2) = BETAS;
        let power = |beta: f64| beta.powi(count.try_into().unwrap_or(i32::MAX));
        self.first = self.first.clone().mul_scalar(b1) + gradient.clone().mul_scalar(1.0 - b1);
        self.second = self.second.clone().mul_scalar(b2) + gradient.square().mul_scalar(1.0 - b2);
        let first = self.first.clone().div_scalar(1.0 - power(b1));
        let second = self.second.clone().div_scalar(1.0 - power(b2));
        first / second.sqrt().add_scalar(EPSILON)
    }
}

/// How far a step goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepSize {
    /// The learning rate.
    pub rate: f64,
    /// What weights lose of themselves, times the rate (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).
    pub decay: f64,
}

impl StepSize {
    /// Weights without what they lose of themselves in this step.
    pub fn decayed(&self, weights: Tensor<2>) -> Tensor<2> {
        match self.rate * self.decay {
            0.0 => weights,
            share => weights.mul_scalar(1.0 - share),
        }
    }
}

/// The size of each entry of a matrix, `sqrt(row · column / all)` of the root mean squares of its row, its column and the whole.
///
/// AdamW on weights divided by this is the same for a matrix and for one with rows and columns rescaled, as norms that change
/// nothing and half precision want them; one learning rate does for all matrices of a model. What is 0 all along a row or a column
/// stays so. A matrix of one column is a bias, whose entries go by their own size.
pub(crate) fn units(weights: &Tensor<2>) -> Tensor<2> {
    if weights.dims()[1] == 1 {
        return weights.clone().abs();
    }
    let square = weights.clone().square();
    let (rows, columns) = (square.clone().mean_dim(1), square.mean_dim(0));
    let all = rows.clone().mean_dim(0).clamp_min(f64::from(f32::MIN_POSITIVE));
    rows.sqrt() * (columns / all).sqrt()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use transmla_core::host_values;

    use super::*;

    fn matrix(rows: usize, values: &[f32]) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(values.to_vec(), [rows, values.len() / rows]),
            &Device::flex(),
        )
    }

    #[test]
    fn units_follow_rows_and_columns() {
        let found = host_values(units(&matrix(2, &[4.0, -2.0, 2.0, 1.0]))).unwrap();
        for (found, expected) in found.iter().zip([4.0, 2.0, 2.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let zero_row = host_values(units(&matrix(2, &[0.0, 0.0, 3.0, -3.0]))).unwrap();
        assert_eq!(zero_row[..2], [0.0, 0.0]);
        assert!((zero_row[2] - 3.0).abs() < 1e-6);
        assert_eq!(
            host_values(units(&matrix(3, &[-1.0, 0.0, 0.5]))).unwrap(),
            [1.0, 0.0, 0.5]
        );
        assert_eq!(host_values(units(&matrix(2, &[0.0; 4]))).unwrap(), [0.0; 4]);
    }
}
