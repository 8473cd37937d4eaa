//! Checks of matrices.

use faer::MatRef;

use crate::error::RopeError;

/// Fails on the first NaN or infinity, column by column.
pub(crate) fn finite(what: &'static str, matrix: MatRef<'_, f64>) -> Result<(), RopeError> {
    if matrix.is_all_finite() {
        return Ok(());
    }
    for (column, values) in matrix.col_iter().enumerate() {
        if let Some((row, value)) = values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(RopeError::NotFinite {
                what,
                row,
                column,
                value: value.to_string(),
            });
        }
    }
    Ok(())
}

/// Fails unless the matrix has this shape.
pub(crate) fn shape(what: &str, matrix: MatRef<'_, f64>, rows: usize, columns: usize) -> Result<(), RopeError> {
    if (matrix.nrows(), matrix.ncols()) == (rows, columns) {
        return Ok(());
    }
    Err(wrong_shape(what, matrix, format!("{rows}, {columns}")))
}

/// Fails unless the matrix has this number of rows.
pub(crate) fn rows(what: &str, matrix: MatRef<'_, f64>, rows: usize) -> Result<(), RopeError> {
    if matrix.nrows() == rows {
        return Ok(());
    }
    Err(wrong_shape(what, matrix, format!("{rows}, any")))
}

fn wrong_shape(what: &str, matrix: MatRef<'_, f64>, expected: String) -> RopeError {
    RopeError::Shape {
        what: what.to_owned(),
        expected,
        rows: matrix.nrows(),
        columns: matrix.ncols(),
    }
}
