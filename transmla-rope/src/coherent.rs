//! Coherence-guided decoupling: a few slots of fixed frequency, each for the key pairs that stay in phase with it.
//!
//! The score of a query with a key `D` tokens before it is `Re Σ_j conj(q_j) z_j e^{-i w_j D}` over complex pairs. If a slot
//! that turns at `v` instead of `w_j` carries pair `j`, the phases drift apart as `D` grows. The best constant factor is then
//! the *gain* `G_j(v) = Σ_D A(D) e^{-i (w_j - v) D}`, where `A` is the share of each distance in the pair's effect on the
//! attention output, and `|G|²` is the share of the term that survives. `v = 0` stands for no position.

mod eligible;
mod greedy;
mod pairs;
mod profile;
mod queries;

use faer::MatRef;

pub use self::eligible::Eligibility;
pub use self::greedy::CoherentSplit;
pub use self::profile::{AttentionProfile, gains};
pub use self::queries::{FittedQueries, fit_queries};

use self::greedy::Greedy;
use self::profile::{check_profile, check_slots, finite_row};
use crate::check;
use crate::error::RopeError;
use crate::shape::HeadShape;

/// Chooses slot keys greedily among pairs that gain from the slot's position.
///
/// In each step the free slot whose best key explains most of the residual of its eligible pairs takes that key, and the
/// part that the key explains is subtracted from these pairs, until all slots are taken. A pair is weighted by the query
/// power that it keeps in the slot beyond the power that it would keep without position.
///
/// Scores of a head are preserved exactly at a distance on which all its profiles are concentrated, and everywhere if all
/// gains are 1.
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
    check_slots(shape, slots)?;
    if let Eligibility::Threshold(rho) = eligibility {
        finite_row("the coherence threshold", 0, &[rho])?;
    }
    check_profile(shape, profile)?;
    let mut greedy = Greedy::new(key_moment, shape, slots, profile, eligibility)?;
    greedy.run()?;
    Ok(greedy.into_split())
}
