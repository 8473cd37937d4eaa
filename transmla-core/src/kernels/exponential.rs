//! Softmax of rows in the vectors of the processor at hand.

use pulp::{Arch, Simd, WithSimd};

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
    arch.dispatch(Largest(row))
}

struct Largest<'a>(&'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (body, rest) = S::as_simd_f32s(self.0);
        let mut all = simd.splat_f32s(f32::NEG_INFINITY);
        for vector in body {
            all = simd.max_f32s(all, *vector);
        }
        let largest = simd.reduce_max_f32s(all);
        rest.iter().fold(largest, |largest, value| largest.max(*value))
    }
}

/// Replaces a row of scores by `exp(score - bound)` and returns the sum; no score may be above the bound.
pub(super) fn exponentiate_below(arch: Arch, row: &mut [f32], bound: f32) -> f32 {
    arch.dispatch(Exponentiate { row, bound })
}

struct Exponentiate<'a> {
    row: &'a mut [f32],
    bound: f32,
}

impl WithSimd for Exponentiate<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let bound = simd.splat_f32s(self.bound);
        let (body, rest) = S::as_mut_simd_f32s(self.row);
        let mut sums = simd.splat_f32s(0.0);
        for vector in body {
            *vector = exp(simd, simd.sub_f32s(*vector, bound));
            sums = simd.add_f32s(sums, *vector);
        }
        let sum = simd.reduce_sum_f32s(sums);
        if rest.is_empty() {
            return sum;
        }
        let last = exp(simd, simd.sub_f32s(simd.partial_load_f32s(rest), bound));
        simd.partial_store_f32s(rest, last);
        sum + rest.iter().sum::<f32>()
    }
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
    arch.dispatch(Cap { scores, bound });
}

struct Cap<'a> {
    scores: &'a mut [f32],
    bound: f32,
}

impl WithSimd for Cap<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [zero, one, bound] = [0.0, 1.0, self.bound].map(|number| simd.splat_f32s(number));
        let steepness = simd.splat_f32s(-2.0 / self.bound);
        let capped = |score| {
            let e = exp(simd, simd.mul_f32s(steepness, simd.abs_f32s(score)));
            let share = simd.div_f32s(simd.sub_f32s(one, e), simd.add_f32s(one, e));
            let size = simd.mul_f32s(bound, share);
            simd.select_f32s(simd.less_than_f32s(score, zero), simd.neg_f32s(size), size)
        };
        let (body, rest) = S::as_mut_simd_f32s(self.scores);
        for vector in body {
            *vector = capped(*vector);
        }
        if !rest.is_empty() {
            let last = capped(simd.partial_load_f32s(rest));
            simd.partial_store_f32s(rest, last);
        }
    }
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

/// e^x for x <= 0 by range reduction to |r| <= ln2 / 2 and a polynomial of degree 6.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // ln 2 in two parts, the first with trailing zeros, so that n · LN2_HIGH is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 · 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    const COEFFICIENTS: [f32; 6] = [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let number = |value| simd.splat_f32s(value);
    let x = simd.max_f32s(x, number(-87.0));
    let shifted = simd.mul_add_f32s(x, number(std::f32::consts::LOG2_E), number(ROUND));
    let n = simd.sub_f32s(shifted, number(ROUND));
    let r = simd.mul_add_f32s(n, number(-LN2_HIGH), x);
    let r = simd.mul_add_f32s(n, number(-LN2_LOW), r);
    let mut p = number(1.0 / 720.0);
    for coefficient in COEFFICIENTS {
        p = simd.mul_add_f32s(p, r, number(coefficient));
    }
    // 2^n by its bits: n, from -126 to 0, is what ends those of the number that was rounded.
    let bits = simd.add_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(127));
    let power = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23)));
    simd.mul_f32s(p, power)
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
