//! The greedy choice of slot keys.

use faer::{Mat, MatRef, Side, c64};

use super::eligible::{Eligibility, above, ownership};
use super::pairs::{complex_moment, real_map};
use super::profile::{AttentionProfile, finite_row, gains, group_coherence, group_power};
use crate::decoupling::Decoupling;
use crate::error::RopeError;
use crate::shape::HeadShape;

/// A [`Decoupling`] whose query matrices include gains.
#[derive(Debug, Clone)]
pub struct CoherentSplit {
    /// The split. The key of each slot has unit power under the key moment. The keys without position are the residual of the
    /// slots in all `K` dimensions: their rank falls by two per slot if the sets of eligible pairs are nested or disjoint, and
    /// possibly by less if they overlap.
    pub decoupling: Decoupling,
    /// Gain without position of the pairs of each head, `[H][J]`; `key_up` includes it.
    pub still_gain: Vec<Vec<c64>>,
}

/// The slot keys chosen so far, and the residual.
pub(super) struct Greedy {
    shape: HeadShape,
    slots: usize,
    /// `[slot][H][J]`.
    slot_gain: Vec<Vec<Vec<c64>>>,
    still_gain: Vec<Vec<c64>>,
    /// Pairs `g·J + j` that each slot may carry.
    eligible: Vec<Vec<usize>>,
    /// Square roots of the weights of these pairs in the slot.
    worth: Vec<Vec<f64>>,
    /// Upper bound of the value of each slot's best key.
    bound: Vec<f64>,
    /// Power of a pair, or of a key with weights of unit length, that is taken for rounding.
    negligible: f64,
    /// Second moment of the residual pairs, `[GJ, GJ]`.
    residual_moment: Mat<c64>,
    /// The residual pairs as a map of the original ones, `[GJ, GJ]`.
    residual: Mat<c64>,
    /// Slot keys as maps of the original pairs, `[slots, GJ]`.
    keys: Mat<c64>,
    /// Coefficient of each slot's key in each pair, `[GJ, slots]`.
    loadings: Mat<c64>,
}

/// Share of the largest pair's power below which a residual is taken for rounding.
const NEGLIGIBLE: f64 = 1e-14;

/// The best key of a slot: its value, and its weights of the eligible residual pairs.
struct Candidate {
    value: f64,
    weights: Vec<c64>,
}

impl Greedy {
    pub(super) fn new(
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
        // Products of finite frequencies and distances can overflow.
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
        // Pairs that gain nothing have a small weight, so that a slot with such pairs alone is not left empty.
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

    pub(super) fn run(&mut self) -> Result<(), RopeError> {
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

    /// Makes `a^H z` over the slot's pairs its key and subtracts from these pairs what it explains.
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
        // The residual of the slot's pairs is rounding: the slot stays empty.
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

    /// Updates the bounds of the slots' values after a key was subtracted from some pairs, so that few slots are computed again.
    ///
    /// With `c` the covariance of a slot's pairs with the key, `c c^H` is subtracted from the slot's weighted moment, except
    /// among pairs from which the key is not subtracted. If the slot has pairs of one kind only, the difference is never
    /// negative. Otherwise its only negative eigenvalue is `(e - √(e² + 4ef)) / 2`, where `e` and `f` are `|c|²` over either
    /// kind, and the slot's value may rise by its magnitude (Weyl's inequality).
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

    pub(super) fn into_split(self) -> CoherentSplit {
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
