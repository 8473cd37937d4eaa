//! Checks of matrices.

use faer::MatRef;

use crate::error::LowRankError;

/// Fails on the first NaN or infinity, column by column.
pub(crate) fn finite(what: &'static str, matrix: MatRef<'_, f64>) -> Result<(), LowRankError> {
    if matrix.is_all_finite() {
        return Ok(());
    }
    for (column, values) in matrix.col_iter().enumerate() {
        if let Some((row, &value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(LowRankError::NotFinite {
                what,
                row,
                column,
                value,
            });
        }
    }
    Ok(())
}

/// Fails unless the matrix has this shape.
pub(crate) fn shape(what: &str, matrix: MatRef<'_, f64>, rows: usize, columns: usize) -> Result<(), LowRankError> {
    if (matrix.nrows(), matrix.ncols()) == (rows, columns) {
        return Ok(());
    }
    Err(wrong_shape(what, matrix, format!("{rows}, {columns}")))
}

/// Fails unless the matrix has this number of columns.
pub(crate) fn columns(what: &str, matrix: MatRef<'_, f64>, columns: usize) -> Result<(), LowRankError> {
    if matrix.ncols() == columns {
        return Ok(());
    }
    Err(wrong_shape(what, matrix, format!("any, {columns}")))
}

/// Fails unless the matrix is square.
pub(crate) fn square(what: &str, matrix: MatRef<'_, f64>) -> Result<(), LowRankError> {
    shape(what, matrix, matrix.nrows(), matrix.nrows())
}

/// Fails unless `1 <= rank <= max`.
pub(crate) fn rank(what: &'static str, rank: usize, max: usize) -> Result<(), LowRankError> {
    if (1..=max).contains(&rank) {
        return Ok(());
    }
    Err(LowRankError::Rank { what, rank, max })
}

/// Fails unless the damping is finite and not negative.
pub(crate) fn damping(found: f64) -> Result<(), LowRankError> {
    if found.is_finite() && found >= 0.0 {
        return Ok(());
    }
    Err(LowRankError::Damping { found })
}

fn wrong_shape(what: &str, matrix: MatRef<'_, f64>, expected: String) -> LowRankError {
    LowRankError::Shape {
        what: what.to_owned(),
        expected,
        rows: matrix.nrows(),
        columns: matrix.ncols(),
    }
}
