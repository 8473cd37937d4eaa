//! How much of the original's keys the slots of a rotary key carry, frequency by frequency.

use faer::MatRef;

use crate::check;
use crate::decoupling::Decoupling;
use crate::error::RopeError;

/// Share of the key energy of each pair that each slot of the rotary key gives back to the queries, `[slot][pair]`.
///
/// The rotary part of a score lets a query see the key `Σ_m query_rope[h]ᵀ s_m` in place of its own, `s_m` being the two
/// numbers of slot m. What slot m takes off the squared error of a pair, `E|k|² - E|k - query_rope[h]ᵀ s_m|²`, relative to
/// the pair's power, both summed over the query heads, is its share: 1 if the slot is the pair, 0 if it does not serve it.
/// For an orthogonal split the shares of all pairs weighted by their power add up to the power of the slot's key. Gains
/// below 1, as [`coherent()`](crate::coherent()) has them, count as they are. What would be negative is 0.
///
/// # Shapes
///
/// `key_moment`: `[K, K]`, the keys' second moment, half-split per head; result: `d_r/2` rows of `d/2` pairs.
///
/// # Errors
///
/// [`RopeError::Shape`], [`RopeError::HeadCount`] or [`RopeError::NotFinite`] for a moment or a split that does not fit.
pub fn slot_energy(split: &Decoupling, key_moment: MatRef<'_, f64>) -> Result<Vec<Vec<f64>>, RopeError> {
    let (shape, rope_dim) = (split.shape, split.rope_dim());
    let (width, head_dim) = (shape.key_width(), shape.head_dim);
    check::shape("the key moment", key_moment, width, width)?;
    check::finite("the key moment", key_moment)?;
    check::shape("key_rope", split.key_rope.as_ref(), rope_dim, width)?;
    split.check_heads("query_rope", &split.query_rope, rope_dim, head_dim)?;
    // [K, d_r] and [d_r, d_r].
    let covariance = key_moment * split.key_rope.transpose();
    let slot_moment = &split.key_rope * &covariance;
    let (pairs, slots) = (shape.pairs(), rope_dim / 2);
    let mut power = vec![0.0; pairs];
    let mut carried = vec![vec![0.0; pairs]; slots];
    for (head, rotary) in split.query_rope.iter().enumerate() {
        let first = shape.key_head_of(head) * head_dim;
        for dim in 0..head_dim {
            power[dim % pairs] += key_moment[(first + dim, first + dim)];
            for (slot, carried) in carried.iter_mut().enumerate() {
                let parts = [slot, slot + slots];
                let common: f64 = parts
                    .iter()
                    .map(|r| rotary[(*r, dim)] * covariance[(first + dim, *r)])
                    .sum();
                let of_slot = parts.iter().flat_map(|r| parts.iter().map(move |s| (*r, *s)));
                let own: f64 = of_slot
                    .map(|(r, s)| rotary[(r, dim)] * rotary[(s, dim)] * slot_moment[(r, s)])
                    .sum();
                carried[dim % pairs] += 2.0 * common - own;
            }
        }
    }
    for carried in &mut carried {
        for (share, power) in carried.iter_mut().zip(&power) {
            *share = if *power > 0.0 {
                (*share / power).clamp(0.0, 1.0)
            } else {
                0.0
            };
        }
    }
    Ok(carried)
}
