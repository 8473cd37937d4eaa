//! Coherence-guided decoupling: a few slots of fixed frequency, each serving the key pairs that stay in phase with it.
//!
//! The score of a query with a key D tokens before it is `Re Σ_j conj(q_j) z_j e^{-i w_j D}` over complex pairs. Serving
//! pair j from a slot that turns at v instead of w_j loses phase agreement as D grows; the best constant to put before
//! it is the *gain* `G_j(v) = Σ_D A(D) e^{-i (w_j - v) D}`, A being the share of each distance in what the attention
//! output notices of that pair, and `|G|²` is the share of the term that survives. No position at all is v = 0.

mod eligible;
mod greedy;
mod pairs;
mod profile;

use faer::MatRef;

pub use self::eligible::Eligibility;
pub use self::greedy::CoherentSplit;
pub use self::profile::{AttentionProfile, gains};

use self::greedy::Greedy;
use self::profile::{check_profile, finite_row};
use crate::check;
use crate::error::RopeError;
use crate::shape::HeadShape;

/// Chooses slot keys greedily among pairs that gain from the slot's position.
///
/// Again and again, the free slot whose best key explains most of its eligible pairs' residual takes that key, and what
/// the key explains is taken out of these pairs, until all slots are taken. What a pair counts is the query power that
/// it keeps in the slot beyond what it would keep without position.
///
/// At distances where all profiles of a head lie entirely, or where all gains are 1, its scores are preserved exactly.
///
/// # Shapes
///
/// `key_moment`: `[K, K]`, the keys' second moment per token, half-split per head, read as symmetric (the mean of it and
/// its transpose); `slots`: frequencies of the `d_r/2` slots, in radians per token.
///
/// # Errors
///
/// An invalid `shape` as in [`HeadShape::new`]; [`RopeError::RopeDim`] for no slots; [`RopeError::HeadCount`],
/// [`RopeError::Shape`] or [`RopeError::NotFinite`] for a moment, profile or slots that do not fit, are not finite or (a
/// share or power) are negative; [`RopeError::Eigen`] if the solver fails.
///
/// # Source
///
/// This project's own method; FreqFold and RoRoPE (TransMLA, arXiv 2502.07864) are its special case of disjoint blocks of
/// eligible pairs, real slot keys and equal weights.
pub fn coherent(
    key_moment: MatRef<'_, f64>,
    shape: HeadShape,
    slots: &[f64],
    profile: &AttentionProfile<'_>,
    eligibility: Eligibility,
) -> Result<CoherentSplit, RopeError> {
    shape.check()?;
    let width = shape.key_width();
    check::shape("the key moment", key_moment, width, width)?;
    check::finite("the key moment", key_moment)?;
    check_slots(shape, slots, eligibility)?;
    check_profile(shape, profile)?;
    let mut greedy = Greedy::new(key_moment, shape, slots, profile, eligibility)?;
    greedy.run()?;
    Ok(greedy.into_split())
}

fn check_slots(shape: HeadShape, slots: &[f64], eligibility: Eligibility) -> Result<(), RopeError> {
    if slots.is_empty() {
        let fits = |dim: &usize| dim.is_multiple_of(2) && shape.head_dim.is_multiple_of(*dim);
        return Err(RopeError::RopeDim {
            head_dim: shape.head_dim,
            found: 0,
            valid: (1..=shape.head_dim).filter(fits).collect(),
        });
    }
    finite_row("the slot frequencies", 0, slots)?;
    match eligibility {
        Eligibility::Ownership => Ok(()),
        Eligibility::Threshold(rho) => finite_row("the coherence threshold", 0, &[rho]),
    }
}
