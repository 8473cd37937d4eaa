//! The order of real and imaginary parts: half-split (Llama) and interleaved (DeepSeek).

use faer::{Mat, MatRef};

use crate::error::RopeError;

/// Half-split rows to interleaved rows, within each block of `block` rows: `(re_0, im_0, re_1, im_1, …)`.
///
/// # Shapes
///
/// `rows` and the result: `[n·block, D]`. With `block = d_r` this turns rotary keys `[d_r, D]` or rotary queries
/// `[H·d_r, D]` into the order that a DeepSeek checkpoint stores.
///
/// # Errors
///
/// [`RopeError::Block`] unless `block` is even, positive and divides the number of rows.
pub fn interleave_rows(rows: MatRef<'_, f64>, block: usize) -> Result<Mat<f64>, RopeError> {
    permute_blocks(rows, block, |row| row / 2 + row % 2 * (block / 2))
}

/// Interleaved rows to half-split rows, within each block of `block` rows: `(re_0, re_1, …, im_0, im_1, …)`.
///
/// # Shapes
///
/// `rows` and the result: `[n·block, D]`.
///
/// # Errors
///
/// [`RopeError::Block`] unless `block` is even, positive and divides the number of rows.
pub fn deinterleave_rows(rows: MatRef<'_, f64>, block: usize) -> Result<Mat<f64>, RopeError> {
    let half = block / 2;
    permute_blocks(
        rows,
        block,
        |row| if row < half { 2 * row } else { 2 * (row - half) + 1 },
    )
}

/// Row `i` of each block of the result is row `source(i)` of that block.
fn permute_blocks(rows: MatRef<'_, f64>, block: usize, source: impl Fn(usize) -> usize) -> Result<Mat<f64>, RopeError> {
    if block == 0 || !block.is_multiple_of(2) || !rows.nrows().is_multiple_of(block) {
        return Err(RopeError::Block {
            rows: rows.nrows(),
            block,
        });
    }
    Ok(Mat::from_fn(rows.nrows(), rows.ncols(), |row, column| {
        rows[(row / block * block + source(row % block), column)]
    }))
}
