//! The kernel that joins what the parts of a sequence gave.

use cubecl::prelude::*;

/// `[rows, d_v]` from weighted sums of values, `[rows, splits, d_v]`, and each one's largest score and sum of weights,
/// `[rows, splits, 2]`. One unit for each vector of the result.
#[cube(launch_unchecked)]
pub(super) fn join_parts<N: Size>(
    sums: &[Vector<f32, N>],
    statistics: &[f32],
    output: &mut [Vector<f32, N>],
    splits: usize,
    vectors: usize,
    #[comptime] value_width: usize,
) {
    if ABSOLUTE_POS >= vectors {
        terminate!();
    }
    let first = ABSOLUTE_POS / value_width * splits;
    let part = ABSOLUTE_POS % value_width;
    let mut largest = statistics[2 * first];
    for split in 1..splits {
        largest = largest.max(statistics[2 * (first + split)]);
    }
    let mut total = 0.0f32.runtime();
    let mut sum = Vector::<f32, N>::new(0.0f32.runtime());
    for split in 0..splits {
        let share = (statistics[2 * (first + split)] - largest).exp();
        total += share * statistics[2 * (first + split) + 1];
        sum += sums[(first + split) * value_width + part] * Vector::new(share);
    }
    // A row that sees no token has no weights.
    output[ABSOLUTE_POS] = sum / Vector::new(select(total > 0.0f32, total, 1.0f32));
}
