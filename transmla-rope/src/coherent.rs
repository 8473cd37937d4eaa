//! Coherence-guided decoupling: a few slots of fixed frequency, each serving the key pairs that stay in phase with it.
//!
//! The score between distance-D tokens is `Re Σ_j conj(q_j) z_j e^{-i w_j D}` over complex pairs. Serving pair j from a slot
//! that turns at v instead of w_j loses phase agreement as D grows; the best constant to put before it is the *gain*
//! `G_j(v) = Σ_D A(D) e^{-i (w_j - v) D}`, A being the share of each distance in what the attention output notices, and
//! `|G|²` is the share of the term that survives. No position at all is v = 0.

use faer::{Mat, MatRef, Side, c64};

use crate::{Decoupling, HeadShape, RopeError, check};

/// Which key pairs a slot may serve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eligibility {
    /// Each frequency belongs to the one slot that it is most coherent with.
    Ownership,
    /// Every pair of at least this coherence with the slot (0 to 1) that is no less coherent without position.
    Threshold(f64),
}

/// What is known of a layer's attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionProfile<'a> {
    /// Frequencies w_j of the original pairs, in radians per token, `[J]`.
    pub frequencies: &'a [f64],
    /// Share of each distance in what the output notices, `[H][distances]`.
    pub distances: &'a [Vec<f64>],
    /// Power of each pair in the weighted query moment, `[H][J]`.
    pub pair_power: &'a [Vec<f64>],
}

/// A [`Decoupling`] with gains, and what a head's NoPE query sees of a key.
#[derive(Debug, Clone)]
pub struct CoherentSplit {
    /// The split; its keys without position are what the slots leave over, all `K` dimensions of them.
    pub decoupling: Decoupling,
    /// Gain without position of each head's pairs, `[H][J]`; `key_up` contains it.
    pub still_gain: Vec<Vec<c64>>,
}

/// Chooses slot keys greedily among pairs that gain from the slot's position.
///
/// # Shapes
///
/// `key_moment`: `[K, K]`, the keys' second moment per token, half-split per head; `slots`: frequencies of the `d_r/2`
/// slots.
///
/// # Errors
///
/// [`RopeError::Shape`] or [`RopeError::NotFinite`] for a moment or profile that does not fit, [`RopeError::Eigen`] if the
/// solver fails.
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
    let mut greedy = Greedy::new(key_moment, shape, slots, profile, eligibility);
    greedy.run()?;
    Ok(greedy.into_split())
}

/// `G_h,j(v)` for every head and pair.
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
    profile
        .distances
        .iter()
        .map(|distances| profile.frequencies.iter().map(|w| gain(distances, *w)).collect())
        .collect()
}

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
    /// Second moment of what is left of the pairs, `[GJ, GJ]`.
    residual_moment: Mat<c64>,
    /// What is left of the pairs, as a map of the original ones, `[GJ, GJ]`.
    residual: Mat<c64>,
    /// Slot keys as maps of the original pairs, `[slots, GJ]`.
    keys: Mat<c64>,
    /// How much of a slot's key each pair is made of, `[GJ, slots]`.
    loadings: Mat<c64>,
}

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
    ) -> Self {
        let pairs = shape.pairs();
        let count = shape.key_heads * pairs;
        let slot_gain: Vec<_> = slots.iter().map(|slot| gains(profile, *slot)).collect();
        let still_gain = gains(profile, 0.0);
        let power = group_power(shape, profile);
        let still = group_coherence(shape, profile, &still_gain, &power);
        let coherence: Vec<Vec<f64>> = slot_gain
            .iter()
            .map(|gain| group_coherence(shape, profile, gain, &power))
            .collect();
        let eligible = match eligibility {
            Eligibility::Ownership => ownership(shape, &coherence, &power),
            Eligibility::Threshold(rho) => coherence.iter().map(|c| above(c, &still, rho)).collect(),
        };
        let mean_power = power.iter().sum::<f64>() / (power.len() * shape.queries_per_key()).max(1) as f64;
        let worth = eligible
            .iter()
            .zip(&coherence)
            .map(|(pairs, c)| {
                let worth = |i: &usize| ((c[*i] - still[*i]).max(0.0) * power[*i] + 1e-6 * mean_power).sqrt();
                pairs.iter().map(worth).collect()
            })
            .collect();
        Self {
            shape,
            slots: slots.len(),
            slot_gain,
            still_gain,
            eligible,
            worth,
            residual_moment: complex_moment(key_moment, shape),
            residual: Mat::identity(count, count),
            keys: Mat::zeros(slots.len(), count),
            loadings: Mat::zeros(count, slots.len()),
        }
    }

    fn run(&mut self) -> Result<(), RopeError> {
        let mut free: Vec<usize> = (0..self.slots)
            .filter(|slot| !self.eligible[*slot].is_empty())
            .collect();
        // Deflation only lowers eigenvalues: an old one bounds the new one, so most slots are not computed again.
        let mut bound = vec![f64::INFINITY; self.slots];
        while !free.is_empty() {
            free.sort_by(|a, b| bound[*b].total_cmp(&bound[*a]));
            let mut best: Option<(usize, Candidate)> = None;
            for &slot in &free {
                if best
                    .as_ref()
                    .is_some_and(|(_, candidate)| bound[slot] <= candidate.value)
                {
                    break;
                }
                let candidate = self.candidate(slot)?;
                bound[slot] = candidate.value;
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
        let vector = eigen.U().col(size - 1);
        Ok(Candidate {
            value: eigen.S()[size - 1].re,
            weights: (0..size).map(|i| vector[i] * worth[i]).collect(),
        })
    }

    /// Makes `a^H z` over the slot's pairs its key and takes what it explains out of those pairs.
    fn take(&mut self, slot: usize, weights: &[c64]) {
        let pairs = self.eligible[slot].clone();
        let count = self.residual.nrows();
        // Rows of S a and the key's power a^H S a.
        let mut covariance = vec![c64::new(0.0, 0.0); count];
        for (row, value) in covariance.iter_mut().enumerate() {
            for (pair, weight) in pairs.iter().zip(weights) {
                *value += self.residual_moment[(row, *pair)] * *weight;
            }
        }
        let power: f64 = pairs
            .iter()
            .zip(weights)
            .map(|(pair, weight)| (weight.conj() * covariance[*pair]).re)
            .sum();
        if !(power > 1e-30) {
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
        let loading = |pair: usize| covariance[pair] / power;
        for &pair in &pairs {
            self.loadings[(pair, slot)] = loading(pair) * unit;
            for column in 0..count {
                let part = loading(pair) * self.keys[(slot, column)] * unit;
                self.residual[(pair, column)] -= part;
            }
        }
        // S' = P S P^H with P = I - E alpha a^H E^T: rows and columns of the eligible pairs change.
        let eligible = {
            let mut mask = vec![false; count];
            pairs.iter().for_each(|p| mask[*p] = true);
            mask
        };
        for row in 0..count {
            for column in 0..count {
                let mut value = self.residual_moment[(row, column)];
                match (eligible[row], eligible[column]) {
                    (true, true) => value -= loading(row) * covariance[column].conj(),
                    (true, false) => value -= loading(row) * covariance[column].conj(),
                    (false, true) => value -= covariance[row] * loading(column).conj(),
                    (false, false) => {}
                }
                self.residual_moment[(row, column)] = value;
            }
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

/// The complex second moment `E[z z^H]` of the pairs, ordered `g·J + j`, from the real one.
fn complex_moment(moment: MatRef<'_, f64>, shape: HeadShape) -> Mat<c64> {
    let (pairs, head_dim) = (shape.pairs(), shape.head_dim);
    let row = |index: usize| index / pairs * head_dim + index % pairs;
    let count = shape.key_heads * pairs;
    Mat::from_fn(count, count, |i, j| {
        let (a, b) = (row(i), row(j));
        c64::new(
            moment[(a, b)] + moment[(a + pairs, b + pairs)],
            moment[(a + pairs, b)] - moment[(a, b + pairs)],
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

/// Query power of each key pair, summed over the query heads that see it, `[GJ]`.
fn group_power(shape: HeadShape, profile: &AttentionProfile<'_>) -> Vec<f64> {
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

/// Share of each key pair's score terms that survives a slot, `[GJ]`.
fn group_coherence(shape: HeadShape, profile: &AttentionProfile<'_>, gain: &[Vec<c64>], power: &[f64]) -> Vec<f64> {
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

fn ownership(shape: HeadShape, coherence: &[Vec<f64>], power: &[f64]) -> Vec<Vec<usize>> {
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
            (0..coherence.len()).max_by(|a, b| kept(a).total_cmp(&kept(b)))
        };
        if let Some(owner) = owner {
            owned[owner].extend((0..shape.key_heads).map(|group| group * pairs + pair));
        }
    }
    owned
}

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
