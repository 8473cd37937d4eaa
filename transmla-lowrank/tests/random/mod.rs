//! Random matrices.

use faer::Mat;

/// Numbers in -1..1 that depend on the seed alone (splitmix64).
pub fn random(rows: usize, columns: usize, seed: u64) -> Mat<f64> {
    let mut state = seed;
    Mat::from_fn(rows, columns, |_, _| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64 * 2.0 - 1.0
    })
}
