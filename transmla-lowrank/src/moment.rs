//! Second moments of linear maps of the inputs.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, get_global_parallelism};

use crate::check;
use crate::error::LowRankError;

/// `rows · moment · rowsᵀ`: the second moment of `rows · x` from the second moment of `x`.
///
/// Keys, values, queries and their rotations are all linear maps of the same inputs, so one moment per layer is enough. The
/// result is exactly symmetric.
///
/// # Shapes
///
/// `rows`: `[n, D]`; `moment`: `[D, D]`, symmetric up to rounding; result: `[n, n]`.
///
/// # Errors
///
/// [`LowRankError::Shape`] if the shapes do not fit, [`LowRankError::NotFinite`] for a NaN or an infinity.
pub fn quadratic_form(rows: MatRef<'_, f64>, moment: MatRef<'_, f64>) -> Result<Mat<f64>, LowRankError> {
    check::columns("the rows", rows, moment.nrows())?;
    check::square("the moment", moment)?;
    check::finite("the rows", rows)?;
    check::finite("the moment", moment)?;
    let mut form = Mat::zeros(rows.nrows(), rows.nrows());
    lower_form(form.as_mut(), product(rows, moment).as_ref(), rows);
    mirror(&mut form);
    // Products of finite weights can overflow.
    check::finite("the second moment of the rows", form.as_ref())?;
    Ok(form)
}

/// The lower triangle of the second moment of `[first; second]·x`, without stacking the two.
pub(crate) fn lower_joint_form(first: MatRef<'_, f64>, second: MatRef<'_, f64>, moment: MatRef<'_, f64>) -> Mat<f64> {
    let split = first.nrows();
    let mut form = Mat::zeros(split + second.nrows(), split + second.nrows());
    let (top, bottom) = form.as_mut().split_at_row_mut(split);
    let (cross, corner) = bottom.split_at_col_mut(split);
    lower_form(top.subcols_mut(0, split), product(first, moment).as_ref(), first);
    let mapped = product(second, moment);
    matmul(
        cross,
        Accum::Replace,
        &mapped,
        first.transpose(),
        1.0,
        get_global_parallelism(),
    );
    lower_form(corner, mapped.as_ref(), second);
    form
}

/// The lower triangle of the symmetric product `mapped · rowsᵀ`, at half the work.
fn lower_form(target: MatMut<'_, f64>, mapped: MatRef<'_, f64>, rows: MatRef<'_, f64>) {
    triangular::matmul(
        target,
        BlockStructure::TriangularLower,
        Accum::Replace,
        mapped,
        BlockStructure::Rectangular,
        rows.transpose(),
        BlockStructure::Rectangular,
        1.0,
        get_global_parallelism(),
    );
}

fn mirror(form: &mut Mat<f64>) {
    for column in 0..form.ncols() {
        for row in column + 1..form.nrows() {
            form[(column, row)] = form[(row, column)];
        }
    }
}

pub(crate) fn product(lhs: MatRef<'_, f64>, rhs: MatRef<'_, f64>) -> Mat<f64> {
    let mut result = Mat::zeros(lhs.nrows(), rhs.ncols());
    matmul(&mut result, Accum::Replace, lhs, rhs, 1.0, get_global_parallelism());
    result
}
