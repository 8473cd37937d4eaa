//! The balance of keys against values.

use faer::MatRef;

use crate::check;
use crate::error::LowRankError;

/// The number by which keys without position (NoPE keys) are divided before the joint PCA, so that neither keys nor values
/// dominate it.
///
/// This is the mean L2 norm of the NoPE key dimensions over the calibration inputs, divided by `balance` times the mean
/// L2 norm of the value dimensions. The norm of dimension `i` is the square root of entry `(i, i)` of the second moment, so
/// the moments may be sums or means, but both must be the same. With `balance = 1` keys and values have equal mean norms
/// afterwards; with larger values, keys have the larger one. The ratio is 1 if there are no NoPE keys, or if all keys or
/// all values are zero.
///
/// # Shapes
///
/// `nope_key_moment`: `[N, N]`; `value_moment`: `[G·d_v, G·d_v]`. The mean leaves out the first `skipped_values` value
/// dimensions (the published code leaves out `d_r`).
///
/// # Errors
///
/// [`LowRankError::Shape`] or [`LowRankError::NotFinite`] for a bad moment, [`LowRankError::Balance`] unless `balance`
/// is positive, [`LowRankError::SkippedValues`] if no value is left.
///
/// # Source
///
/// TransMLA, arXiv 2502.07864: balancing the norms of keys and values before their joint PCA.
pub fn balance_ratio(
    nope_key_moment: MatRef<'_, f64>,
    value_moment: MatRef<'_, f64>,
    skipped_values: usize,
    balance: f64,
) -> Result<f64, LowRankError> {
    check::square("the moment of the NoPE keys", nope_key_moment)?;
    check::square("the moment of the values", value_moment)?;
    check::finite("the moment of the NoPE keys", nope_key_moment)?;
    check::finite("the moment of the values", value_moment)?;
    ratio(nope_key_moment, value_moment, skipped_values, balance)
}

/// [`balance_ratio`] of moments that are square and finite; only their diagonals are read.
pub(crate) fn ratio(
    keys: MatRef<'_, f64>,
    values: MatRef<'_, f64>,
    skipped_values: usize,
    balance: f64,
) -> Result<f64, LowRankError> {
    if !(balance.is_finite() && balance > 0.0) {
        return Err(LowRankError::Balance { found: balance });
    }
    if keys.nrows() == 0 {
        return Ok(1.0);
    }
    if skipped_values >= values.nrows() {
        return Err(LowRankError::SkippedValues {
            skipped: skipped_values,
            values: values.nrows(),
        });
    }
    let key_norm = mean_norm(keys, 0);
    let value_norm = mean_norm(values, skipped_values);
    let ratio = key_norm / (balance * value_norm);
    // Zero keys or zero values need no balance.
    Ok(if ratio.is_normal() { ratio } else { 1.0 })
}

fn mean_norm(moment: MatRef<'_, f64>, skipped: usize) -> f64 {
    // Rounding can leave a small negative number for a dimension that is always zero.
    let sum: f64 = (skipped..moment.nrows()).map(|i| moment[(i, i)].max(0.0).sqrt()).sum();
    sum / (moment.nrows() - skipped) as f64
}
