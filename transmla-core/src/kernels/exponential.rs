//! Softmax of rows, written so that the compiler vectorises it for the processor at hand.

use pulp::Arch;

/// Independent accumulators of a reduction: enough for the widest registers.
const LANES: usize = 16;

/// Replaces a row of scores by `exp(score - max)` and returns the sum.
///
/// Relative error of each value below 2e-7. An empty row sums to 0.
pub(super) fn exponentiate(arch: Arch, row: &mut [f32]) -> f32 {
    let largest = largest(arch, row);
    exponentiate_below(arch, row, largest)
}

/// The largest of a row, -∞ of an empty one.
pub(super) fn largest(arch: Arch, row: &[f32]) -> f32 {
    arch.dispatch(
        #[inline(always)]
        || reduce(row, f32::NEG_INFINITY, |x| x, f32::max),
    )
}

/// Replaces a row of scores by `exp(score - bound)` and returns the sum; no score may be above the bound.
pub(super) fn exponentiate_below(arch: Arch, row: &mut [f32], bound: f32) -> f32 {
    arch.dispatch(
        #[inline(always)]
        || {
            let (chunks, rest) = row.as_chunks_mut::<LANES>();
            let mut sums = [0.0f32; LANES];
            for chunk in chunks {
                for (value, sum) in chunk.iter_mut().zip(&mut sums) {
                    *value = exp(*value - bound);
                    *sum += *value;
                }
            }
            let mut sum = sums.iter().sum::<f32>();
            for value in rest {
                *value = exp(*value - bound);
                sum += *value;
            }
            sum
        },
    )
}

/// Multiplies a row by a number.
pub(super) fn scale(arch: Arch, row: &mut [f32], factor: f32) {
    arch.dispatch(
        #[inline(always)]
        || row.iter_mut().for_each(|value| *value *= factor),
    );
}

/// Bounds scores: `c · tanh(score / c)`.
pub(super) fn cap(arch: Arch, scores: &mut [f32], bound: f32) {
    let inverse = bound.recip();
    arch.dispatch(
        #[inline(always)]
        || {
            for score in &mut *scores {
                let e = exp(-2.0 * (*score * inverse).abs());
                *score = (bound * (1.0 - e) / (1.0 + e)).copysign(*score);
            }
        },
    );
}

/// Multiplies gradients by the slope of [`cap`] where it gave `capped`: `1 - (capped / c)²`.
pub(super) fn slope_of_cap(arch: Arch, capped: &[f32], bound: f32, gradients: &mut [f32]) {
    let inverse = bound.recip();
    arch.dispatch(
        #[inline(always)]
        || {
            for (gradient, capped) in gradients.iter_mut().zip(capped) {
                let share = capped * inverse;
                *gradient *= 1.0 - share * share;
            }
        },
    );
}

/// From probabilities p and their gradients to those of the scores, in place of the gradients: `p (dp - Σ p dp)`.
pub(super) fn softmax_gradient(arch: Arch, probabilities: &[f32], gradients: &mut [f32]) {
    arch.dispatch(
        #[inline(always)]
        || {
            let mut sums = [0.0f32; LANES];
            let (p, p_rest) = probabilities.as_chunks::<LANES>();
            let (dp, dp_rest) = gradients.as_chunks::<LANES>();
            for (p, dp) in p.iter().zip(dp) {
                for ((p, dp), sum) in p.iter().zip(dp).zip(&mut sums) {
                    *sum += p * dp;
                }
            }
            let rest: f32 = p_rest.iter().zip(dp_rest).map(|(p, dp)| p * dp).sum();
            let mean = sums.iter().sum::<f32>() + rest;
            for (p, dp) in probabilities.iter().zip(gradients) {
                *dp = p * (*dp - mean);
            }
        },
    );
}

#[inline(always)]
fn reduce(row: &[f32], start: f32, map: impl Fn(f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [start; LANES];
    for chunk in chunks {
        for (value, lane) in chunk.iter().zip(&mut lanes) {
            *lane = join(*lane, map(*value));
        }
    }
    lanes.iter().chain(rest).fold(start, |all, value| join(all, *value))
}

/// e^x for x <= 0 by range reduction to |r| <= ln2 / 2 and a polynomial of degree 6.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, the first with trailing zeros, so that n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    // 2^n by its bits; n is from -126 to 0.
    p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_the_exponential(row in prop::collection::vec(-80.0f32..0.0, 1..70)) {
            let mut found = row.clone();
            let sum = exponentiate(Arch::new(), &mut found);
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut expected_sum = 0.0;
            for (found, x) in found.iter().zip(&row) {
                let expected = f64::from(x - largest).exp();
                expected_sum += expected;
                prop_assert!((f64::from(*found) / expected - 1.0).abs() < 5e-7, "{x} - {largest}: {found} {expected}");
            }
            prop_assert!((f64::from(sum) / expected_sum - 1.0).abs() < 1e-6);
        }
    }

    proptest! {
        #[test]
        fn is_the_bounded_score(row in prop::collection::vec(-400.0f32..400.0, 1..40), bound in 1.0f32..60.0) {
            let mut found = row.clone();
            cap(Arch::new(), &mut found, bound);
            for (found, x) in found.iter().zip(&row) {
                let expected = f64::from(bound) * (f64::from(*x) / f64::from(bound)).tanh();
                prop_assert!((f64::from(*found) - expected).abs() < 1e-6 * f64::from(bound), "{x}: {found} {expected}");
            }
        }
    }

    #[test]
    fn what_is_masked_counts_nothing() {
        let mut row = [1.0, f32::NEG_INFINITY, 0.0];
        let sum = exponentiate(Arch::new(), &mut row);
        assert!(row[1] < 1e-37 && (sum - (1.0 + (-1.0f32).exp())).abs() < 1e-6);
    }
}
