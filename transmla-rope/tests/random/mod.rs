//! Random matrices, and the frequencies of RoPE.

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

/// Frequencies of a head of `dim` dimensions in radians per token: `theta^(-2j/dim)` for pair `j`.
pub fn frequencies(theta: f64, dim: usize) -> Vec<f64> {
    (0..dim / 2).map(|j| theta.powf(-2.0 * j as f64 / dim as f64)).collect()
}
