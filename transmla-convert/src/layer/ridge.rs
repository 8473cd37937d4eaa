//! Linear least squares that hold weights to what they were.

use burn::tensor::Tensor;
use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};
use transmla_core::kernels::matrix_product;
use transmla_core::{CoreError, host_values};

/// What holds weights to what they were, as a share of the mean second moment of their inputs.
const RIDGE: f64 = 1e-3;

/// Adds `aᵀ b` to the first columns of a sum: the product is taken in f32 on the device, the sum in f64.
///
/// # Shapes
/// `a` `[rows, n]`, `b` `[rows, m]`, the sum `[n, m]` or with more columns.
pub(crate) fn add_product(sum: &mut Mat<f64>, a: Tensor<2>, b: Tensor<2>) -> Result<(), CoreError> {
    // Rows of this product are columns of the sum, which is how faer stores them.
    let products = host_values(matrix_product(b.transpose(), a))?;
    for (column, values) in products.chunks_exact(sum.nrows()).enumerate() {
        for (sum, value) in sum.col_as_slice_mut(column).iter_mut().zip(values) {
            *sum += f64::from(*value);
        }
    }
    Ok(())
}

/// The change X of weights that minimises `Σ |Xᵀ x - e|² + λ |X|²`, from the inputs' moment `Σ x xᵀ` and `Σ x eᵀ`, e being
/// what the weights leave; nothing if the moment is not finite.
///
/// # Shapes
/// `moment` `[n, n]`, `rest` and result `[n, outputs]`.
pub(crate) fn change(mut moment: Mat<f64>, rest: MatRef<'_, f64>) -> Option<Mat<f64>> {
    let size = moment.nrows();
    let ridge = RIDGE * (0..size).map(|i| moment[(i, i)]).sum::<f64>() / size as f64;
    for i in 0..size {
        moment[(i, i)] += ridge.max(f64::MIN_POSITIVE);
    }
    Some(moment.llt(Side::Lower).ok()?.solve(rest))
}
