//! Attention profile of a layer, and the coherence of its pairs with a slot.

use faer::c64;

use crate::error::RopeError;
use crate::shape::HeadShape;

/// Statistics of a layer's attention by query head and rotary pair.
#[derive(Debug, Clone, Copy)]
pub struct AttentionProfile<'a> {
    /// Frequencies `w_j` of the original pairs, in radians per token, `[J]`.
    pub frequencies: &'a [f64],
    /// Share of each distance (in tokens, from 0) in the effect of a head's pair on the attention output,
    /// `[H][J][distances]`. Not negative; the shares of a pair add up to 1, or gains are not shares.
    pub distances: &'a [Vec<Vec<f64>>],
    /// Power of each pair in the weighted query moment, `[H][J]`. Not negative; all zero stands for all equal.
    pub pair_power: &'a [Vec<f64>],
}

/// The gains `G_h,j(v)` of a slot of frequency `v` (0: no position) for every head and pair.
///
/// Their magnitude is at most 1, and is 1 for a pair of the slot's frequency.
///
/// # Shapes
///
/// `[H][J]`, where `H` and `J` are the lengths of `profile.distances` and `profile.frequencies`.
pub fn gains(profile: &AttentionProfile<'_>, slot: f64) -> Vec<Vec<c64>> {
    let gain = |distances: &Vec<f64>, frequency: f64| {
        let step = frequency - slot;
        distances
            .iter()
            .enumerate()
            .fold(c64::new(0.0, 0.0), |sum, (distance, share)| {
                let (sin, cos) = (-step * distance as f64).sin_cos();
                sum + c64::new(share * cos, share * sin)
            })
    };
    let of_head = |pairs: &Vec<Vec<f64>>| {
        let pairs = pairs.iter().zip(profile.frequencies);
        pairs.map(|(distances, w)| gain(distances, *w)).collect()
    };
    profile.distances.iter().map(of_head).collect()
}

/// Query power of each key pair, summed over the query heads of its key head, `[GJ]`.
pub(super) fn group_power(shape: HeadShape, profile: &AttentionProfile<'_>) -> Vec<f64> {
    let mut power = vec![0.0; shape.key_heads * shape.pairs()];
    for (head, pairs) in profile.pair_power.iter().enumerate() {
        let first = shape.key_head_of(head) * shape.pairs();
        power[first..]
            .iter_mut()
            .zip(pairs)
            .for_each(|(sum, power)| *sum += power);
    }
    power
}

/// Share of the score terms of each key pair that survives in a slot, `[GJ]`.
pub(super) fn group_coherence(
    shape: HeadShape,
    profile: &AttentionProfile<'_>,
    gain: &[Vec<c64>],
    power: &[f64],
) -> Vec<f64> {
    let mut kept = vec![0.0; power.len()];
    for (head, pairs) in profile.pair_power.iter().enumerate() {
        let first = shape.key_head_of(head) * shape.pairs();
        for (pair, power) in pairs.iter().enumerate() {
            kept[first + pair] += gain[head][pair].norm_sqr() * power;
        }
    }
    kept.iter()
        .zip(power)
        .map(|(kept, power)| kept / power.max(f64::MIN_POSITIVE))
        .collect()
}

/// Fails unless the profile fits the heads.
pub(super) fn check_profile(shape: HeadShape, profile: &AttentionProfile<'_>) -> Result<(), RopeError> {
    let length = |what: String, expected: String, values: &[f64], fits: bool| match fits {
        true => Ok(()),
        false => Err(RopeError::Shape {
            what,
            expected,
            rows: 1,
            columns: values.len(),
        }),
    };
    let pairs = shape.pairs();
    let frequencies = profile.frequencies;
    let fits = frequencies.len() == pairs;
    length("the pair frequencies".into(), format!("1, {pairs}"), frequencies, fits)?;
    finite_row("the pair frequencies", 0, frequencies)?;
    for (what, found) in [
        ("distance profiles", profile.distances.len()),
        ("pair powers", profile.pair_power.len()),
    ] {
        if found != shape.query_heads {
            return Err(RopeError::HeadCount {
                what,
                expected: shape.query_heads,
                found,
            });
        }
    }
    let root = |values: &[f64]| values.iter().map(|value| value.sqrt()).collect::<Vec<_>>();
    for (head, (profiles, power)) in profile.distances.iter().zip(profile.pair_power).enumerate() {
        if profiles.len() != pairs {
            return Err(RopeError::Shape {
                what: format!("the distance profiles of query head {head}"),
                expected: format!("{pairs}, any"),
                rows: profiles.len(),
                columns: profiles.first().map_or(0, Vec::len),
            });
        }
        for (pair, shares) in profiles.iter().enumerate() {
            let what = format!("the distance profile of pair {pair} of query head {head}");
            length(what, "1, at least 1".into(), shares, !shares.is_empty())?;
            finite_row("the distance profiles", head, shares)?;
            // A negative number has no square root.
            finite_row("the square root of the distance profiles", head, &root(shares))?;
        }
        let what = format!("the pair powers of query head {head}");
        length(what, format!("1, {pairs}"), power, power.len() == pairs)?;
        finite_row("the pair powers", head, power)?;
        finite_row("the square root of the pair powers", head, &root(power))?;
    }
    Ok(())
}

/// Fails on the first NaN or infinity of a row.
pub(super) fn finite_row(what: &'static str, row: usize, values: &[f64]) -> Result<(), RopeError> {
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        None => Ok(()),
        Some((column, value)) => Err(RopeError::NotFinite {
            what,
            row,
            column,
            value: value.to_string(),
        }),
    }
}

/// Checks that there are slots, with frequencies that are finite.
pub(super) fn check_slots(shape: HeadShape, slots: &[f64]) -> Result<(), RopeError> {
    if slots.is_empty() {
        let fits = |dim: &usize| dim.is_multiple_of(2) && shape.head_dim.is_multiple_of(*dim);
        return Err(RopeError::RopeDim {
            head_dim: shape.head_dim,
            found: 0,
            valid: (1..=shape.head_dim).filter(fits).collect(),
        });
    }
    finite_row("the slot frequencies", 0, slots)
}
