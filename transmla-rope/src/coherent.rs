//! Coherence-guided decoupling: a few slots of fixed frequency, each serving the key pairs that stay in phase with it.
//!
//! The score of a query with a key D tokens before it is `Re Σ_j conj(q_j) z_j e^{-i w_j D}` over complex pairs. Serving
//! pair j from a slot that turns at v instead of w_j loses phase agreement as D grows; the best constant to put before
//! it is the *gain* `G_j(v) = Σ_D A(D) e^{-i (w_j - v) D}`, A being the share of each distance in what the attention
//! output notices of that pair, and `|G|²` is the share of the term that survives. No position at all is v = 0.

mod profile;

use faer::{Mat, MatRef, Side, c64};

pub use self::profile::{AttentionProfile, gains};

use self::profile::{check_profile, finite_row, group_coherence, group_power};
use crate::{Decoupling, HeadShape, RopeError, check};

/// Which key pairs a slot may serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eligibility {
    /// Each frequency belongs to the one slot that it is most coherent with (of equals the nearest in frequency), slot j
    /// to frequency j if there is a slot for each. A slot that no frequency belongs to stays empty: zero rows.
    Ownership,
    /// A slot may serve every pair of at least this coherence with it (0 to 1) that is no more coherent without position;
    /// if there is none, the pair that is most coherent with it.
    Threshold(f64),
}

/// A [`Decoupling`] whose queries contain gains.
#[derive(Debug, Clone)]
pub struct CoherentSplit {
    /// The split. Each slot's key has unit power under the key moment. The keys without position are what the slots
    /// leave over, in all `K` dimensions: two fewer of rank per slot where the slots' sets of eligible pairs are nested or
    /// disjoint, possibly more where they overlap.
    pub decoupling: Decoupling,
    /// Gain without position of each head's pairs, `[H][J]`; `key_up` contains it.
    pub still_gain: Vec<Vec<c64>>,
}

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

/// What is chosen so far.
struct Greedy {
    shape: HeadShape,
    slots: usize,
    /// `[slot][H][J]`.
    slot_gain: Vec<Vec<Vec<c64>>>,
    still_gain: Vec<Vec<c64>>,
    /// Pairs `g·J + j` that each slot may serve.
    eligible: Vec<Vec<usize>>,
    /// Square roots of what serving a pair from the slot is worth, for the same pairs.
    worth: Vec<Vec<f64>>,
    /// At least the value of each slot's best key.
    bound: Vec<f64>,
    /// Power of a pair, or of a key with weights of unit length, that is rounding.
    negligible: f64,
    /// Second moment of what is left of the pairs, `[GJ, GJ]`.
    residual_moment: Mat<c64>,
    /// What is left of the pairs, as a map of the original ones, `[GJ, GJ]`.
    residual: Mat<c64>,
    /// Slot keys as maps of the original pairs, `[slots, GJ]`.
    keys: Mat<c64>,
    /// How much of a slot's key each pair is made of, `[GJ, slots]`.
    loadings: Mat<c64>,
}

/// Share of the largest pair's power below which a residual is rounding.
const NEGLIGIBLE: f64 = 1e-14;

/// The best key of a slot: its value and weights on the eligible residual pairs.
struct Candidate {
    value: f64,
    weights: Vec<c64>,
}

impl Greedy {
    fn new(
        key_moment: MatRef<'_, f64>,
        shape: HeadShape,
        slots: &[f64],
        profile: &AttentionProfile<'_>,
        eligibility: Eligibility,
    ) -> Result<Self, RopeError> {
        let pairs = shape.pairs();
        let count = shape.key_heads * pairs;
        let slot_gain: Vec<_> = slots.iter().map(|slot| gains(profile, *slot)).collect();
        let still_gain = gains(profile, 0.0);
        // Finite frequencies can overflow when they are multiplied by distances.
        for (head, gain) in slot_gain
            .iter()
            .chain([&still_gain])
            .flat_map(|gain| gain.iter().enumerate())
        {
            finite_row("the gains", head, &gain.iter().map(c64::norm_sqr).collect::<Vec<_>>())?;
        }
        let power = group_power(shape, profile);
        let still = group_coherence(shape, profile, &still_gain, &power);
        let coherence: Vec<Vec<f64>> = slot_gain
            .iter()
            .map(|gain| group_coherence(shape, profile, gain, &power))
            .collect();
        let eligible = match eligibility {
            Eligibility::Ownership => ownership(shape, profile.frequencies, slots, &coherence, &power),
            Eligibility::Threshold(rho) => coherence.iter().map(|c| above(c, &still, rho)).collect(),
        };
        // Pairs that gain nothing count a little, so that a slot with only such pairs is not left empty.
        let mean_power = power.iter().sum::<f64>() / (power.len() * shape.queries_per_key()) as f64;
        let least = if mean_power > 0.0 { 1e-6 * mean_power } else { 1.0 };
        let worth = eligible
            .iter()
            .zip(&coherence)
            .map(|(pairs, c)| {
                let worth = |i: &usize| ((c[*i] - still[*i]).max(0.0) * power[*i] + least).sqrt();
                pairs.iter().map(worth).collect()
            })
            .collect();
        let residual_moment = complex_moment(key_moment, shape);
        let negligible = NEGLIGIBLE * (0..count).map(|i| residual_moment[(i, i)].re).fold(0.0, f64::max);
        Ok(Self {
            shape,
            slots: slots.len(),
            slot_gain,
            still_gain,
            eligible,
            worth,
            bound: vec![f64::INFINITY; slots.len()],
            negligible,
            residual_moment,
            residual: Mat::identity(count, count),
            keys: Mat::zeros(slots.len(), count),
            loadings: Mat::zeros(count, slots.len()),
        })
    }

    fn run(&mut self) -> Result<(), RopeError> {
        let mut free: Vec<usize> = (0..self.slots)
            .filter(|slot| !self.eligible[*slot].is_empty())
            .collect();
        while !free.is_empty() {
            free.sort_by(|a, b| self.bound[*b].total_cmp(&self.bound[*a]));
            let mut best: Option<(usize, Candidate)> = None;
            for &slot in &free {
                if best
                    .as_ref()
                    .is_some_and(|(_, candidate)| self.bound[slot] <= candidate.value)
                {
                    break;
                }
                let candidate = self.candidate(slot)?;
                self.bound[slot] = candidate.value;
                if best.as_ref().is_none_or(|(_, best)| candidate.value > best.value) {
                    best = Some((slot, candidate));
                }
            }
            let Some((slot, candidate)) = best else { break };
            free.retain(|other| *other != slot);
            self.take(slot, &candidate.weights);
        }
        Ok(())
    }

    fn candidate(&self, slot: usize) -> Result<Candidate, RopeError> {
        let (pairs, worth) = (&self.eligible[slot], &self.worth[slot]);
        let size = pairs.len();
        let weighted = Mat::from_fn(size, size, |i, j| {
            let both = self.residual_moment[(pairs[i], pairs[j])] + self.residual_moment[(pairs[j], pairs[i])].conj();
            both * (0.5 * worth[i] * worth[j])
        });
        let failed = || RopeError::Eigen { group: slot, size };
        if !weighted.is_all_finite() {
            return Err(failed());
        }
        let eigen = weighted.self_adjoint_eigen(Side::Lower).map_err(|_| failed())?;
        let (value, vector) = (eigen.S()[size - 1].re, eigen.U().col(size - 1));
        if !(value.is_finite() && vector.is_all_finite()) {
            return Err(failed());
        }
        Ok(Candidate {
            value,
            weights: (0..size).map(|i| vector[i] * worth[i]).collect(),
        })
    }

    /// Makes `a^H z` over the slot's pairs its key and takes what it explains out of those pairs.
    fn take(&mut self, slot: usize, weights: &[c64]) {
        let pairs = self.eligible[slot].clone();
        let count = self.residual.nrows();
        // S a, and the key's power a^H S a.
        let mut covariance = vec![c64::new(0.0, 0.0); count];
        for (row, value) in covariance.iter_mut().enumerate() {
            for (pair, weight) in pairs.iter().zip(weights) {
                *value += self.residual_moment[(row, *pair)] * *weight;
            }
        }
        let of_key = |(pair, weight): (&usize, &c64)| (weight.conj() * covariance[*pair]).re;
        let power: f64 = pairs.iter().zip(weights).map(of_key).sum();
        let length: f64 = weights.iter().map(c64::norm_sqr).sum();
        // Nothing is left of the slot's pairs: it stays empty.
        if power <= self.negligible * length {
            return;
        }
        let unit = power.sqrt();
        for column in 0..count {
            let mut key = c64::new(0.0, 0.0);
            for (pair, weight) in pairs.iter().zip(weights) {
                key += weight.conj() * self.residual[(*pair, column)];
            }
            self.keys[(slot, column)] = key / unit;
        }
        let mut explained = vec![false; count];
        for &pair in &pairs {
            explained[pair] = true;
            self.loadings[(pair, slot)] = covariance[pair] / unit;
            for column in 0..count {
                let part = self.loadings[(pair, slot)] * self.keys[(slot, column)];
                self.residual[(pair, column)] -= part;
            }
        }
        self.raise_bounds(&explained, &covariance, power);
        // S' = P S P^H with P = I - alpha a^H on the eligible pairs, whose rows and columns change.
        for row in 0..count {
            for column in 0..count {
                if explained[row] || explained[column] {
                    let part = covariance[row] * covariance[column].conj() / power;
                    self.residual_moment[(row, column)] -= part;
                }
            }
        }
    }

    /// Bounds slots' values after a key is taken out of some pairs, so that most slots need not be computed again.
    ///
    /// What is taken out of a slot's weighted moment, with c the covariance of its pairs with the key, is `c c^H` less its
    /// part among pairs that the key is not taken out of. If the slot has pairs of only one kind that is never negative.
    /// With both, its only negative eigenvalue is `(e - √(e² + 4ef)) / 2`, e and f being |c|² over either kind, and the
    /// slot's value may rise by that much (Weyl's inequality).
    fn raise_bounds(&mut self, explained: &[bool], covariance: &[c64], power: f64) {
        for (slot, bound) in self.bound.iter_mut().enumerate() {
            let (mut inside, mut outside) = (0.0, 0.0);
            for (pair, worth) in self.eligible[slot].iter().zip(&self.worth[slot]) {
                let part = worth * worth * covariance[*pair].norm_sqr();
                *(if explained[*pair] { &mut inside } else { &mut outside }) += part;
            }
            *bound += (f64::hypot(inside, 2.0 * (inside * outside).sqrt()) - inside) / (2.0 * power);
        }
    }

    fn into_split(self) -> CoherentSplit {
        let shape = self.shape;
        let (pairs, head_dim, slots) = (shape.pairs(), shape.head_dim, self.slots);
        let key_rope = real_map(self.keys.as_ref(), shape.key_heads, pairs, 1, slots);
        let key_nope = real_map(self.residual.as_ref(), shape.key_heads, pairs, shape.key_heads, pairs);
        let (mut query_rope, mut key_up) = (Vec::new(), Vec::new());
        for head in 0..shape.query_heads {
            let group = shape.key_head_of(head);
            let rotary = Mat::from_fn(slots, pairs, |slot, pair| {
                (self.loadings[(group * pairs + pair, slot)] * self.slot_gain[slot][head][pair]).conj()
            });
            query_rope.push(real_map(rotary.as_ref(), 1, pairs, 1, slots));
            let mut up = Mat::zeros(head_dim, shape.key_width());
            for pair in 0..pairs {
                let gain = self.still_gain[head][pair];
                let (re, im) = (group * head_dim + pair, group * head_dim + pair + pairs);
                up[(pair, re)] = gain.re;
                up[(pair, im)] = -gain.im;
                up[(pair + pairs, re)] = gain.im;
                up[(pair + pairs, im)] = gain.re;
            }
            key_up.push(up);
        }
        CoherentSplit {
            decoupling: Decoupling {
                shape,
                key_rope,
                key_nope,
                query_rope,
                key_up,
            },
            still_gain: self.still_gain,
        }
    }
}

/// The complex second moment `E[z z^H]` of the pairs, ordered `g·J + j`, from the real one; exactly Hermitian.
fn complex_moment(moment: MatRef<'_, f64>, shape: HeadShape) -> Mat<c64> {
    let (pairs, head_dim) = (shape.pairs(), shape.head_dim);
    let row = |index: usize| index / pairs * head_dim + index % pairs;
    let count = shape.key_heads * pairs;
    let both = |i: usize, j: usize| 0.5 * (moment[(i, j)] + moment[(j, i)]);
    Mat::from_fn(count, count, |i, j| {
        let (a, b) = (row(i), row(j));
        c64::new(
            both(a, b) + both(a + pairs, b + pairs),
            both(a + pairs, b) - both(a, b + pairs),
        )
    })
}

/// A complex-linear map as a real one on half-split blocks: `in_blocks` blocks of `in_pairs` pairs to `out_blocks` of
/// `out_pairs`.
fn real_map(map: MatRef<'_, c64>, in_blocks: usize, in_pairs: usize, out_blocks: usize, out_pairs: usize) -> Mat<f64> {
    let mut real = Mat::zeros(2 * out_blocks * out_pairs, 2 * in_blocks * in_pairs);
    for i in 0..out_blocks * out_pairs {
        let row = i / out_pairs * 2 * out_pairs + i % out_pairs;
        for j in 0..in_blocks * in_pairs {
            let column = j / in_pairs * 2 * in_pairs + j % in_pairs;
            let value = map[(i, j)];
            real[(row, column)] = value.re;
            real[(row, column + in_pairs)] = -value.im;
            real[(row + out_pairs, column)] = value.im;
            real[(row + out_pairs, column + in_pairs)] = value.re;
        }
    }
    real
}

/// The pairs `g·J + j` that each slot owns.
fn ownership(
    shape: HeadShape,
    frequencies: &[f64],
    slots: &[f64],
    coherence: &[Vec<f64>],
    power: &[f64],
) -> Vec<Vec<usize>> {
    let pairs = shape.pairs();
    let mut owned = vec![Vec::new(); coherence.len()];
    for pair in 0..pairs {
        let kept = |slot: &usize| -> f64 {
            let of_group = |group: usize| coherence[*slot][group * pairs + pair] * power[group * pairs + pair];
            (0..shape.key_heads).map(of_group).sum()
        };
        let owner = if coherence.len() >= pairs {
            Some(pair)
        } else {
            let apart = |slot: &usize| (slots[*slot] - frequencies[pair]).abs();
            let better = |a: &usize, b: &usize| kept(a).total_cmp(&kept(b)).then(apart(b).total_cmp(&apart(a)));
            (0..coherence.len()).max_by(better)
        };
        if let Some(owner) = owner {
            owned[owner].extend((0..shape.key_heads).map(|group| group * pairs + pair));
        }
    }
    owned
}

/// The pairs that a slot may serve by [`Eligibility::Threshold`].
fn above(coherence: &[f64], still: &[f64], rho: f64) -> Vec<usize> {
    let chosen: Vec<usize> = (0..coherence.len())
        .filter(|i| coherence[*i] >= rho && coherence[*i] >= still[*i])
        .collect();
    if !chosen.is_empty() {
        return chosen;
    }
    // A slot that nothing is coherent with takes the pair that is most.
    (0..coherence.len())
        .max_by(|a, b| coherence[*a].total_cmp(&coherence[*b]))
        .into_iter()
        .collect()
}
