//! Half-split real dimensions as complex pairs, and back.

use faer::{Mat, MatRef, c64};

use crate::shape::HeadShape;

/// The complex second moment `E[z z^H]` of the pairs, ordered `g·J + j`, from the real one; exactly Hermitian.
pub(super) fn complex_moment(moment: MatRef<'_, f64>, shape: HeadShape) -> Mat<c64> {
    let (pairs, head_dim) = (shape.pairs(), shape.head_dim);
    let row = |index: usize| index / pairs * head_dim + index % pairs;
    let count = shape.key_heads * pairs;
    let both = |i: usize, j: usize| 0.5 * (moment[(i, j)] + moment[(j, i)]);
    Mat::from_fn(count, count, |i, j| {
        let (a, b) = (row(i), row(j));
        c64::new(
            both(a, b) + both(a + pairs, b + pairs),
            both(a + pairs, b) - both(a, b + pairs),
        )
    })
}

/// A complex-linear map as a real one on half-split blocks: `in_blocks` blocks of `in_pairs` pairs to `out_blocks` of
/// `out_pairs`.
pub(super) fn real_map(
    map: MatRef<'_, c64>,
    in_blocks: usize,
    in_pairs: usize,
    out_blocks: usize,
    out_pairs: usize,
) -> Mat<f64> {
    let mut real = Mat::zeros(2 * out_blocks * out_pairs, 2 * in_blocks * in_pairs);
    for i in 0..out_blocks * out_pairs {
        let row = i / out_pairs * 2 * out_pairs + i % out_pairs;
        for j in 0..in_blocks * in_pairs {
            let column = j / in_pairs * 2 * in_pairs + j % in_pairs;
            let value = map[(i, j)];
            real[(row, column)] = value.re;
            real[(row, column + in_pairs)] = -value.im;
            real[(row + out_pairs, column)] = value.im;
            real[(row + out_pairs, column + in_pairs)] = value.re;
        }
    }
    real
}
