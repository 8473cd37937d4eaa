//! Adam in the eigenbasis of a weight matrix's inputs, its step in proportion to the weights.

use burn::tensor::{Device, Tensor};
use faer::{MatRef, Side};
use transmla_core::CoreError;
use transmla_core::kernels::matrix_product;

use crate::layer::weights::to_linear;

/// Betas of Adam (Kingma and Ba, arXiv 1412.6980).
const BETAS: (f64, f64) = (0.9, 0.99);

/// Keeps a gradient that is 0 everywhere from being divided by 0.
const EPSILON: f64 = 1e-12;

/// Adam on one weight matrix `W = V B`, `[out, in]`, in the coordinates V.
///
/// B are the eigenvectors of the second moment of what W multiplies: Adam treats coordinates as independent, and there
/// they are (the one-sided form of SOAP, arXiv 2409.11321, with a basis that is known before the first step). A step
/// changes an entry of V by about `rate · sqrt(row · column / all)`, the root mean squares of V's row, column and whole:
/// the parts of a stacked matrix (latent and rotary key, keys and values, loud and quiet directions) differ by orders of
/// magnitude, and one step size for all of them shakes the quiet ones apart.
pub(super) struct EigenAdam {
    basis: Option<Tensor<2>>,
    first: Tensor<2>,
    second: Tensor<2>,
    /// `[out, in]`, or broadcast to it.
    steps: Tensor<2>,
    count: i32,
}

impl EigenAdam {
    /// # Shapes
    /// `weights`: `[out, in]`; `basis`: `[in, in]` with eigenvectors as rows, nothing for the coordinates as they are.
    pub fn new(weights: &Tensor<2>, rate: f64, basis: Option<Tensor<2>>) -> Self {
        let square = to_basis(weights.clone(), basis.as_ref()).square();
        let (rows, columns) = (square.clone().mean_dim(1), square.mean_dim(0));
        let all = rows.clone().mean_dim(0).clamp_min(f64::from(f32::MIN_POSITIVE));
        Self {
            basis,
            first: weights.zeros_like(),
            second: weights.zeros_like(),
            steps: (rows * (columns / all)).sqrt().mul_scalar(rate),
            count: 0,
        }
    }

    /// The weights after one more step, against the gradient and `fraction` of the full length.
    pub fn step(&mut self, weights: Tensor<2>, gradient: Tensor<2>, fraction: f64) -> Tensor<2> {
        let (b1, b2) = BETAS;
        let gradient = to_basis(gradient, self.basis.as_ref());
        self.first = self.first.clone().mul_scalar(b1) + gradient.clone().mul_scalar(1.0 - b1);
        self.second = self.second.clone().mul_scalar(b2) + gradient.square().mul_scalar(1.0 - b2);
        self.count += 1;
        let first = self.first.clone().div_scalar(1.0 - b1.powi(self.count));
        let second = self.second.clone().div_scalar(1.0 - b2.powi(self.count));
        let change = first / second.sqrt().add_scalar(EPSILON) * self.steps.clone().mul_scalar(fraction);
        weights
            - match &self.basis {
                Some(basis) => matrix_product(change, basis.clone()),
                None => change,
            }
    }
}

fn to_basis(matrix: Tensor<2>, basis: Option<&Tensor<2>>) -> Tensor<2> {
    match basis {
        Some(basis) => matrix_product(matrix, basis.clone().transpose()),
        None => matrix,
    }
}

/// The eigenvectors of a second moment `[n, n]`, as rows, on a device.
pub(super) fn eigenbasis(moment: MatRef<'_, f64>, device: &Device) -> Result<Tensor<2>, CoreError> {
    let eigen = moment
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| CoreError::Execution("the second moment of the calibration inputs has no eigenvectors".into()))?;
    Ok(to_linear(eigen.U().transpose(), moment.nrows(), device).weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;
    use faer::Mat;
    use transmla_core::host_values;

    fn matrix(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Tensor<2> {
        let values: Vec<f32> = (0..rows * columns).map(|i| value(i / columns, i % columns)).collect();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    }

    #[test]
    fn eigenvectors_are_orthonormal_rows_that_diagonalise() {
        let moment = Mat::from_fn(5, 5, |i, j| 1.0 / (1 + i + j) as f64 + f64::from(u8::from(i == j)));
        let basis = eigenbasis(moment.as_ref(), &Device::flex()).unwrap();
        let m = matrix(5, 5, |i, j| moment[(i, j)] as f32);
        let turned = basis.clone().matmul(m).matmul(basis.clone().transpose());
        let gram = host_values(basis.clone().matmul(basis.transpose())).unwrap();
        for (index, value) in host_values(turned).unwrap().into_iter().enumerate() {
            let diagonal = index % 6 == 0;
            assert!(diagonal || value.abs() < 1e-5, "{index}: {value}");
            assert!((gram[index] - f32::from(u8::from(diagonal))).abs() < 1e-5);
        }
    }

    #[test]
    fn a_first_step_is_in_proportion_to_row_and_column() {
        let weights = matrix(2, 2, |i, j| [[4.0, 2.0], [2.0, 1.0]][i][j]);
        let mut adam = EigenAdam::new(&weights, 0.5, None);
        let gradient = matrix(2, 2, |i, j| [[1.0, -3.0], [1e-3, 0.0]][i][j]);
        let after = host_values(adam.step(weights, gradient, 0.1)).unwrap();
        let expected = [4.0 - 0.2, 2.0 + 0.1, 2.0 - 0.1, 1.0];
        for (found, expected) in after.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_quadratic_with_correlated_inputs_is_minimised_faster_in_its_eigenbasis() {
        // |(W - T) L|², L L' being the second moment: two loud and nearly parallel directions.
        let moment = Mat::from_fn(3, 3, |i, j| [[4.0, 3.9, 0.0], [3.9, 4.0, 0.0], [0.0, 0.0, 0.01]][i][j]);
        let m = matrix(3, 3, |i, j| moment[(i, j)] as f32);
        let target = matrix(2, 3, |i, j| [[1.0, -1.0, 2.0], [0.5, 1.0, -1.0]][i][j]);
        let reach = |basis: Option<Tensor<2>>| {
            let mut weights = matrix(2, 3, |i, j| [[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]][i][j]);
            let mut adam = EigenAdam::new(&weights, 0.1, basis);
            for step in 0..60 {
                let gradient = (weights.clone() - target.clone()).matmul(m.clone());
                weights = adam.step(weights, gradient, 1.0 - f64::from(step) / 60.0);
            }
            let error = weights - target.clone();
            host_values((error.clone().matmul(m.clone()) * error).sum()).unwrap()[0]
        };
        let basis = eigenbasis(moment.as_ref(), &Device::flex()).unwrap();
        let (turned, plain) = (reach(Some(basis)), reach(None));
        assert!(turned < 0.5 * plain, "{turned} {plain}");
    }
}
