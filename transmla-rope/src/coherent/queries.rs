//! Queries by least squares on the scores: of all slots and of the latent together.

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, MatRef, Side, c64};

use super::profile::{AttentionProfile, check_profile, check_slots};
use crate::check;
use crate::error::RopeError;
use crate::shape::HeadShape;

/// Maps of each head's query, by which slots and latent give its scores.
#[derive(Debug, Clone)]
pub struct FittedQueries {
    /// One `[d_r, d]` per query head, as [`Decoupling::query_rope`](crate::Decoupling::query_rope).
    pub query_rope: Vec<Mat<f64>>,
    /// One `[d, r]` per query head: from the latent to the head's key without position.
    pub key_up: Vec<Mat<f64>>,
}

/// What holds the solution to zero, as shares of the mean power of slots and latent, of which the first is taken that makes a moment
/// positive: where they repeat each other, and where a moment whose products are in `f32` is not positive by their rounding.
const RIDGES: [f64; 3] = [1e-8, 1e-6, 1e-4];

/// The queries of all slots and of a latent, by which the scores of each head err least.
///
/// With `y(D)` a head's key turned by its distance D and `f(D)` the slot keys turned by theirs and the latent, which does not
/// turn, the score `q · y(D)` is replaced by `q · B f(D)`. Keys, queries and distances are taken as independent: then row
/// `j` of `B` minimises `E (y_j(D) - B_j f(D))²` over the keys' moment and the distances of its pair, whatever the queries'
/// moment. Gains of a [`CoherentSplit`](crate::CoherentSplit) are each right by itself; these know of each other.
///
/// Several choices of slot keys and latent are solved together, each as if alone: what distances do is the same for all of them, and
/// most of the work.
///
/// # Shapes
///
/// `moments`, one for each choice: `[K + d_r + r, K + d_r + r]`, the second moment of a token's keys, half-split per head, its slot
/// keys, half-split, and its latent; symmetric. `slots`: frequencies of the `d_r/2` slots, in radians per token.
///
/// # Errors
///
/// As [`coherent`](crate::coherent()); [`RopeError::LeastSquares`] for a moment that is none.
pub fn fit_queries(
    moments: &[MatRef<'_, f64>],
    shape: HeadShape,
    slots: &[f64],
    profile: &AttentionProfile<'_>,
) -> Result<Vec<FittedQueries>, RopeError> {
    const WHAT: &str = "the moment of keys, slots and latent";
    shape.check()?;
    check_slots(shape, slots)?;
    check_profile(shape, profile)?;
    let mut choices = Vec::with_capacity(moments.len());
    for moment in moments {
        let size = moment.nrows().max(shape.key_width() + 2 * slots.len());
        check::shape(WHAT, *moment, size, size)?;
        check::finite(WHAT, *moment)?;
        let joint = Joint::new(*moment, shape, slots.len())?;
        let fitted = joint.nothing_fitted(shape);
        choices.push((joint, fitted));
    }
    let turns = Turns::new(slots, profile);
    for head in 0..shape.query_heads {
        for pair in 0..shape.pairs() {
            let gains = turns.gains(pair, &profile.distances[head][pair]);
            for (joint, fitted) in &mut choices {
                joint.fit(shape, [head, pair], &gains, fitted)?;
            }
        }
    }
    Ok(choices.into_iter().map(|(_, fitted)| fitted).collect())
}

/// Rows of the real and the imaginary part of a pair.
type Pair = [usize; 2];

/// The moments of keys, slots and latent.
struct Joint<'a> {
    moment: MatRef<'a, f64>,
    slots: Vec<Pair>,
    /// Mean power of slots and latent.
    power: f64,
    /// Regression of keys and slots on the latent, `[r, K + d_r]`.
    regression: Mat<f64>,
    /// What it explains of their moment, `[K + d_r, K + d_r]`.
    explained: Mat<f64>,
}

impl<'a> Joint<'a> {
    fn new(moment: MatRef<'a, f64>, shape: HeadShape, slots: usize) -> Result<Self, RopeError> {
        let width = shape.key_width();
        let turning = width + 2 * slots;
        let rank = moment.nrows() - turning;
        let power: f64 = (width..moment.nrows()).map(|i| moment[(i, i)]).sum();
        let power = power / (2 * slots + rank) as f64;
        let latent = moment.submatrix(turning, turning, rank, rank).to_owned();
        let cross = moment.submatrix(turning, 0, rank, turning);
        let factor = factorise(latent, power).ok_or(RopeError::LeastSquares { head: 0, pair: 0 })?;
        let regression = factor.solve(cross);
        Ok(Self {
            moment,
            slots: (0..slots).map(|slot| [width + slot, width + slots + slot]).collect(),
            power,
            explained: cross.transpose() * &regression,
            regression,
        })
    }

    /// Zeros in the shape of the solution.
    fn nothing_fitted(&self, shape: HeadShape) -> FittedQueries {
        FittedQueries {
            query_rope: vec![Mat::zeros(2 * self.slots.len(), shape.head_dim); shape.query_heads],
            key_up: vec![Mat::zeros(shape.head_dim, self.regression.nrows()); shape.query_heads],
        }
    }

    /// Solves for the queries of one pair of a head.
    fn fit(
        &self,
        shape: HeadShape,
        [head, pair]: [usize; 2],
        gains: &Gains,
        fitted: &mut FittedQueries,
    ) -> Result<(), RopeError> {
        let key = self.key(shape, head, pair);
        let rope = self.slot_queries(key, gains);
        let rope = rope.ok_or(RopeError::LeastSquares { head, pair })?;
        let nope = self.latent_queries(key, gains, rope.as_ref());
        for (part, row) in [pair, pair + shape.pairs()].into_iter().enumerate() {
            fitted.query_rope[head].col_mut(row).copy_from(rope.col(part));
            fitted.key_up[head].row_mut(row).copy_from(nope.col(part).transpose());
        }
        Ok(())
    }

    fn key(&self, shape: HeadShape, head: usize, pair: usize) -> Pair {
        let first = shape.key_head_of(head) * shape.head_dim + pair;
        [first, first + shape.pairs()]
    }

    /// Moment of the parts of two pairs, turned and without what the latent explains, from the gains of their difference,
    /// their sum and each alone.
    fn turned(&self, a: Pair, b: Pair, [minus, plus]: [c64; 2], [first, second]: [c64; 2]) -> [[f64; 2]; 2] {
        let [conjugate, plain] = complex_moments(self.moment, a, b);
        let [still_conjugate, still_plain] = complex_moments(self.explained.as_ref(), a, b);
        let conjugate = conjugate * minus - still_conjugate * first * second.conj();
        let plain = plain * plus - still_plain * first * second;
        [
            [0.5 * (conjugate.re + plain.re), 0.5 * (plain.im - conjugate.im)],
            [0.5 * (plain.im + conjugate.im), 0.5 * (conjugate.re - plain.re)],
        ]
    }

    /// Slot queries of both parts of a pair, `[d_r, 2]`; nothing if the moment is not positive.
    fn slot_queries(&self, key: Pair, gains: &Gains) -> Option<Mat<f64>> {
        let count = self.slots.len();
        let (mut gram, mut right) = (Mat::zeros(2 * count, 2 * count), Mat::zeros(2 * count, 2));
        for (a, slot) in self.slots.iter().enumerate() {
            for (b, other) in self.slots.iter().enumerate().take(a + 1) {
                let alone = [gains.slots[a], gains.slots[b]];
                let block = self.turned(*slot, *other, gains.between[a][b], alone);
                for (i, row) in block.iter().enumerate() {
                    for (j, value) in row.iter().enumerate() {
                        gram[(a + i * count, b + j * count)] = *value;
                        gram[(b + j * count, a + i * count)] = *value;
                    }
                }
            }
            let block = self.turned(key, *slot, gains.to_slots[a], [gains.alone, gains.slots[a]]);
            for (i, row) in block.iter().enumerate() {
                for (j, value) in row.iter().enumerate() {
                    right[(a + j * count, i)] = *value;
                }
            }
        }
        Some(factorise(gram, self.power)?.solve(right))
    }

    /// Latent queries of both parts of a pair, `[r, 2]`, given those of the slots: the regression of what these leave.
    fn latent_queries(&self, key: Pair, gains: &Gains, rope: MatRef<'_, f64>) -> Mat<f64> {
        let turned = |[re, im]: Pair, gain: c64, row: usize| {
            c64::new(self.regression[(row, re)], self.regression[(row, im)]) * gain
        };
        let count = self.slots.len();
        let mut queries = Mat::zeros(self.regression.nrows(), 2);
        for row in 0..queries.nrows() {
            let own = turned(key, gains.alone, row);
            let mut left = [own.re, own.im];
            for (index, (slot, gain)) in self.slots.iter().zip(&gains.slots).enumerate() {
                let value = turned(*slot, *gain, row);
                for (part, left) in left.iter_mut().enumerate() {
                    *left -= value.re * rope[(index, part)] + value.im * rope[(index + count, part)];
                }
            }
            left.into_iter()
                .enumerate()
                .for_each(|(part, left)| queries[(row, part)] = left);
        }
        queries
    }
}

/// The Cholesky factor of a moment with the smallest ridge that it takes; nothing if it is no moment.
fn factorise(moment: Mat<f64>, power: f64) -> Option<Llt<f64>> {
    RIDGES.into_iter().find_map(|ridge| {
        let mut held = moment.clone();
        let ridge = (ridge * power).max(f64::MIN_POSITIVE);
        (0..held.nrows()).for_each(|i| held[(i, i)] += ridge);
        held.llt(Side::Lower).ok()
    })
}

/// `E[a b*]` and `E[a b]` of two pairs.
fn complex_moments(moment: MatRef<'_, f64>, a: Pair, b: Pair) -> [c64; 2] {
    let at = |i: usize, j: usize| moment[(a[i], b[j])];
    [
        c64::new(at(0, 0) + at(1, 1), at(1, 0) - at(0, 1)),
        c64::new(at(0, 0) - at(1, 1), at(1, 0) + at(0, 1)),
    ]
}

/// Mean turns over the distances of one pair of a head.
struct Gains {
    /// By the pair's frequency.
    alone: c64,
    /// By each slot's.
    slots: Vec<c64>,
    /// By the pair's less each slot's, and by both.
    to_slots: Vec<[c64; 2]>,
    /// By a slot's less another's, and by both, for the others up to itself.
    between: Vec<Vec<[c64; 2]>>,
}

/// Cosines and sines of distances from 0, by the frequencies that occur.
struct Turns {
    slots: usize,
    /// `[D, 2 slots + 1]`: cosines of all slots, their sines, and ones.
    features: Mat<f64>,
    /// `[D, 2]` for each pair.
    pairs: Vec<Mat<f64>>,
}

impl Turns {
    fn new(slots: &[f64], profile: &AttentionProfile<'_>) -> Self {
        let longest = profile.distances.iter().flatten().map(Vec::len).max().unwrap_or(0);
        let of = |frequencies: &[f64], column: usize, distance: usize| {
            let angle = frequencies[column % frequencies.len()] * distance as f64;
            if column < frequencies.len() {
                angle.cos()
            } else {
                angle.sin()
            }
        };
        let feature = |distance, column| match column == 2 * slots.len() {
            true => 1.0,
            false => of(slots, column, distance),
        };
        let pair = |w: &f64| Mat::from_fn(longest, 2, |distance, part| of(&[*w], part, distance));
        Self {
            slots: slots.len(),
            features: Mat::from_fn(longest, 2 * slots.len() + 1, feature),
            pairs: profile.frequencies.iter().map(pair).collect(),
        }
    }

    /// Mean turns `E e^{-iθD}`, whose differences and sums of frequencies are means of products of cosines and sines.
    fn gains(&self, pair: usize, shares: &[f64]) -> Gains {
        let features = self.features.subrows(0, shares.len());
        let weighted = faer::ColRef::from_slice(shares).as_diagonal() * features;
        let means = features.transpose() * &weighted;
        let of_pair = self.pairs[pair].subrows(0, shares.len()).transpose() * &weighted;
        let (count, one) = (self.slots, 2 * self.slots);
        let between = |a: usize, b: usize| {
            let sines = [means[(a + count, b)], means[(a, b + count)]];
            difference_and_sum([means[(a, b)], means[(a + count, b + count)]], sines)
        };
        let to_slot = |slot: usize| {
            let sines = [of_pair[(1, slot)], of_pair[(0, slot + count)]];
            difference_and_sum([of_pair[(0, slot)], of_pair[(1, slot + count)]], sines)
        };
        Gains {
            alone: c64::new(of_pair[(0, one)], -of_pair[(1, one)]),
            slots: (0..count)
                .map(|slot| c64::new(means[(slot, one)], -means[(slot + count, one)]))
                .collect(),
            to_slots: (0..count).map(to_slot).collect(),
            between: (0..count).map(|a| (0..=a).map(|b| between(a, b)).collect()).collect(),
        }
    }
}

/// `E e^{-i(a-b)}` and `E e^{-i(a+b)}`, from `E cos a cos b` and `E sin a sin b`, and `E sin a cos b` and `E cos a sin b`.
fn difference_and_sum([cosines, sines]: [f64; 2], [first, second]: [f64; 2]) -> [c64; 2] {
    [
        c64::new(cosines + sines, second - first),
        c64::new(cosines - sines, -first - second),
    ]
}
