//! What half precision does to numbers, and factors that it keeps exactly.

/// Root mean square error of rounding to multiples of 2^-24, what half precision does to numbers below 6e-5.
pub(crate) const SUBNORMAL_ERROR: f64 = 1.720_633_4e-8;

/// The power of two that is nearest by its logarithm.
pub(crate) fn power_of_two(value: f64) -> f64 {
    value.log2().round().exp2()
}
