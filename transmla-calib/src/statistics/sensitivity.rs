//! Sensitivity of the loss to a layer's attention scores, queries and values.

use transmla_core::burn::tensor::activation::softmax;
use transmla_core::burn::tensor::{Tensor, TensorData};
use transmla_core::kernels::{AttentionParameters, attention_mask, matrix_product};
use transmla_core::model::Rotary;
use transmla_core::model::attention::GroupedAttention;
use transmla_core::{CoreError, host_values};
use transmla_lowrank::faer::{Mat, Scale};

/// Most scores that are computed at once, of all heads together, unless told otherwise.
const SCORES_AT_ONCE: usize = 4 << 20;

/// Tensors as large as the scores that are held at once.
const SCORE_TENSORS: u64 = 8;

/// Tensors as large as the queries that are held at once: those of [`Sequence`] and what they are made from.
const SEQUENCE_TENSORS: u64 = 8;

/// First-order sensitivity of the loss to a layer's attention, accumulated over sequences.
///
/// Let g_t be the gradient of the loss with respect to the layer's attention output at token t, p the attention
/// probabilities and o the output of a head. A change of the score of head h between query t and key u costs
/// `a_h(t,u) = p_h(t,u)² · (g_t · W_O,h (v_g(u) - o_h(t)))²`; a change δ of a value costs `p_h(t,u)² (g_t · W_O,h δ)²`.
///
/// The first token of a sequence serves as an attention sink. It is at distance t from every query and would dominate the
/// profile of ordinary tokens. As a key it is therefore left out of the profiles and query moments; as a value it counts.
///
/// Profiles are taken for each pair j of key entries, weighted by `a_h(t,u) |z_j(u)|²`: a phase error of a pair costs where
/// its keys are large, which may be on distant tokens for one pair and on nearby tokens for another.
///
/// Memory does not grow with the number of sequences: a profile as long as a sequence per head and pair, and two `d × d`
/// moments per head. Scores are computed for some queries at a time, so that it grows with the length of a sequence and not
/// with its square.
#[derive(Debug, Clone)]
pub struct Sensitivity {
    heads: usize,
    head_dim: usize,
    sequence: usize,
    scores_at_once: usize,
    /// `[H][J][distance]`: sums of a |z_j|².
    profile: Vec<Vec<Vec<f64>>>,
    /// Sums of a q qᵀ.
    query_moment: Vec<Mat<f64>>,
    /// Sums of p² r rᵀ, r = W_Oᵀ g.
    value_metric: Vec<Mat<f64>>,
    tokens: u64,
}

/// A sequence in front of an attention's softmax: queries before RoPE and rotated, rotated keys, squared magnitudes of key pairs,
/// values and gradients at the heads' outputs, `[H, T, d]` each.
struct Sequence<'a> {
    parameters: &'a AttentionParameters,
    q: Tensor<3>,
    rotated: Tensor<3>,
    keys: Tensor<3>,
    powers: Tensor<3>,
    v: Tensor<3>,
    r: Tensor<3>,
}

impl Sensitivity {
    /// The statistics of no sequences, for `heads` query heads of width `head_dim` and sequences of `sequence` tokens.
    pub fn new(heads: usize, head_dim: usize, sequence: usize) -> Self {
        Self {
            heads,
            head_dim,
            sequence,
            scores_at_once: SCORES_AT_ONCE,
            profile: vec![vec![vec![0.0; sequence]; head_dim / 2]; heads],
            query_moment: vec![Mat::zeros(head_dim, head_dim); heads],
            value_metric: vec![Mat::zeros(head_dim, head_dim); heads],
            tokens: 0,
        }
    }

    /// The same statistics with at most `scores` scores computed at once, of all heads together, or those of one query. Fewer take
    /// less memory and more time.
    #[must_use]
    pub fn scores_at_once(self, scores: usize) -> Self {
        Self {
            scores_at_once: scores,
            ..self
        }
    }

    /// Estimated bytes that [`Self::add`] takes for a sequence beside its arguments, with as many scores at once as
    /// [`Self::new`] says.
    pub fn peak_bytes(heads: usize, head_dim: usize, sequence: usize) -> u64 {
        let scores = queries_at_once(SCORES_AT_ONCE, heads, sequence) * heads * sequence;
        let numbers = SCORE_TENSORS * scores as u64 + SEQUENCE_TENSORS * (heads * sequence * head_dim) as u64;
        numbers * size_of::<f32>() as u64
    }

    /// Adds sequences. They are processed one at a time, some queries together ([`Self::peak_bytes`]).
    ///
    /// # Shapes
    /// `inputs` of the attention: `[batch·seq, hidden]`; `gradients` of the loss with respect to its output: the same;
    /// `rotary`: `seq` positions.
    ///
    /// # Errors
    /// [`CoreError::Shape`] for sequences or positions of another length or an attention with other heads,
    /// [`CoreError::Execution`] if the device fails.
    pub fn add(
        &mut self,
        attention: &GroupedAttention,
        inputs: &Tensor<2>,
        gradients: &Tensor<2>,
        batch: usize,
        rotary: &Rotary,
    ) -> Result<(), CoreError> {
        self.check(attention, inputs, gradients, batch, rotary)?;
        for index in 0..batch {
            let part = |all: &Tensor<2>| all.clone().narrow(0, index * self.sequence, self.sequence);
            self.add_sequence(attention, part(inputs), part(gradients), rotary)?;
        }
        Ok(())
    }

    fn check(
        &self,
        attention: &GroupedAttention,
        inputs: &Tensor<2>,
        gradients: &Tensor<2>,
        batch: usize,
        rotary: &Rotary,
    ) -> Result<(), CoreError> {
        let check = |what: &str, found: Vec<usize>, expected: Vec<usize>| match found == expected {
            true => Ok(()),
            false => Err(CoreError::Shape {
                name: format!("{what} of the sensitivity statistics"),
                expected,
                found,
            }),
        };
        let (heads, groups) = (attention.query_heads, attention.key_heads);
        if groups == 0 || !heads.is_multiple_of(groups) || self.sequence == 0 || self.head_dim == 0 {
            return check(
                "heads, width and length",
                vec![heads, self.head_dim, self.sequence],
                vec![groups.max(1), self.head_dim.max(1), self.sequence.max(1)],
            );
        }
        let hidden = attention.q.weight.dims()[1];
        let rows = batch * self.sequence;
        let (queries, keys) = (self.heads * self.head_dim, groups * self.head_dim);
        check("query heads", vec![heads], vec![self.heads])?;
        check("q_proj", attention.q.weight.dims().to_vec(), vec![queries, hidden])?;
        check("k_proj", attention.k.weight.dims().to_vec(), vec![keys, hidden])?;
        check("v_proj", attention.v.weight.dims().to_vec(), vec![keys, hidden])?;
        check("o_proj", attention.o.weight.dims().to_vec(), vec![hidden, queries])?;
        check("inputs", inputs.dims().to_vec(), vec![rows, hidden])?;
        check("gradients", gradients.dims().to_vec(), vec![rows, hidden])?;
        check("positions", vec![rotary.positions().len()], vec![self.sequence])
    }

    fn add_sequence(
        &mut self,
        attention: &GroupedAttention,
        x: Tensor<2>,
        gradients: Tensor<2>,
        rotary: &Rotary,
    ) -> Result<(), CoreError> {
        let sequence = self.sequence;
        let shared = self.heads / attention.key_heads;
        let split = |y: Tensor<2>, heads: usize| -> Tensor<3> {
            let width = y.dims()[1] / heads;
            y.reshape([sequence, heads, width]).swap_dims(0, 1)
        };
        let repeat = |y: Tensor<3>| -> Tensor<3> {
            let [groups, _, width] = y.dims();
            y.unsqueeze_dim::<4>(1)
                .expand([groups, shared, sequence, width])
                .reshape([self.heads, sequence, width])
        };
        let rotate = |y: Tensor<3>| rotary.apply(y.unsqueeze_dim(0)).squeeze_dim::<3>(0);
        let q = split(attention.queries(x.clone()), self.heads); // [H, T, d]
        let k = split(attention.keys(x.clone()), attention.key_heads);
        let all = Sequence {
            parameters: &attention.parameters,
            rotated: rotate(q.clone()),
            keys: repeat(rotate(k.clone())),
            powers: repeat(pair_powers(k)),
            v: repeat(split(attention.v.forward(x), attention.key_heads)),
            // r = W_O,hᵀ g: the gradient at each head's output.
            r: split(matrix_product(gradients, attention.o.weight.clone()), self.heads),
            q,
        };
        let block = queries_at_once(self.scores_at_once, self.heads, sequence);
        for start in (0..sequence).step_by(block) {
            self.add_queries(&all, start, block.min(sequence - start))?;
        }
        self.tokens += sequence as u64;
        Ok(())
    }

    /// Adds `count` queries from `start` on, and all keys that they see.
    fn add_queries(&mut self, all: &Sequence<'_>, start: usize, count: usize) -> Result<(), CoreError> {
        let seen = start + count;
        let queries = |x: &Tensor<3>| x.clone().narrow(1, start, count);
        let keys = |x: &Tensor<3>| x.clone().narrow(1, 0, seen);
        let (q, r, v) = (queries(&all.q), queries(&all.r), keys(&all.v));
        let parameters = all.parameters;
        let products = queries(&all.rotated).matmul(keys(&all.keys).swap_dims(1, 2));
        let mut scores = products.mul_scalar(parameters.scale); // [H, count, seen]
        // Derivative of the soft-cap.
        let mut slope = None;
        if let Some(cap) = parameters.softcap {
            let bounded = scores.div_scalar(cap).tanh();
            slope = Some(bounded.clone().square().neg().add_scalar(1.0));
            scores = bounded.mul_scalar(cap);
        }
        if let Some(mask) = attention_mask(parameters, count, seen, &scores.device()) {
            let mask = mask.unsqueeze::<3>().expand([self.heads, count, seen]);
            scores = scores.mask_fill(mask, f32::NEG_INFINITY);
        }
        let p = softmax(scores, 2);
        let o = p.clone().matmul(v.clone());
        let own = (r.clone() * o).sum_dim(2); // [H, count, 1]
        let gap = (r.clone().matmul(v.swap_dims(1, 2)) - own).square();
        let weight = p.square();
        let a = zero_first_key(weight.clone() * gap);
        let a = match slope {
            Some(slope) => a * slope.square(),
            None => a,
        };
        let per_query = a.clone().sum_dim(2); // [H, count, 1]
        add_moments(&mut self.query_moment, q.clone() * per_query, q)?;
        add_moments(&mut self.value_metric, r.clone() * weight.sum_dim(2), r)?;
        self.add_profiles(a, keys(&all.powers))
    }

    /// Adds costs `[H, count, seen]` of the last `count` of `seen` tokens as queries, 0 for later keys, times the powers
    /// `[H, seen, J]` of the keys, by distance.
    ///
    /// Keys are taken in pieces of `count`, the last of which ends with the last query, so that a piece has distances of less
    /// than `2·count`.
    fn add_profiles(&mut self, a: Tensor<3>, powers: Tensor<3>) -> Result<(), CoreError> {
        let [heads, count, seen] = a.dims();
        let pairs = powers.dims()[2];
        let pieces = seen.div_ceil(count);
        let missing = pieces * count - seen;
        // Keys that there are not, in front.
        let a = after_zeros(missing, a.swap_dims(1, 2));
        let powers = after_zeros(missing, powers);
        let costs = by_distance(a.reshape([heads * pieces, count, count]));
        let profiles = costs.matmul(powers.reshape([heads * pieces, count, pairs])); // [H·pieces, 2·count, J]
        let profiles = host_values(profiles)?;
        for (index, rows) in profiles.chunks_exact(2 * count * pairs).enumerate() {
            let (head, piece) = (index / pieces, index % pieces);
            // Row i has distance i - (count - 1) in the last piece.
            let behind = (pieces - 1 - piece) * count;
            for (row, values) in rows.chunks_exact(pairs).enumerate() {
                let Some(distance) = (behind + row).checked_sub(count - 1) else {
                    continue;
                };
                for (profile, value) in self.profile[head].iter_mut().zip(values) {
                    if let Some(sum) = profile.get_mut(distance) {
                        *sum += f64::from(*value);
                    }
                }
            }
        }
        Ok(())
    }

    /// Share of each distance in the sensitivity to each pair of a head, `[H][J][distance]`; the shares of a pair sum to 1.
    ///
    /// A pair without any sensitivity has all of it at distance 0. NaN and infinite inputs propagate.
    pub fn profiles(&self) -> Vec<Vec<Vec<f64>>> {
        let normalise = |profile: &Vec<f64>| -> Vec<f64> {
            let sum: f64 = profile.iter().sum();
            match sum == 0.0 {
                true => (0..profile.len()).map(|distance| f64::from(distance == 0)).collect(),
                false => profile.iter().map(|value| value / sum).collect(),
            }
        };
        let of_head = |pairs: &Vec<Vec<f64>>| pairs.iter().map(normalise).collect();
        self.profile.iter().map(of_head).collect()
    }

    /// Second moment of each head's queries before RoPE, weighted by sensitivity, per token: H matrices `[d, d]`.
    pub fn query_moments(&self) -> Vec<Mat<f64>> {
        let per_token = Scale(1.0 / self.tokens.max(1) as f64);
        self.query_moment.iter().map(|moment| per_token * moment).collect()
    }

    /// Metric of errors of each head's values, per token: H matrices `[d, d]`.
    pub fn value_metrics(&self) -> Vec<Mat<f64>> {
        let per_token = Scale(1.0 / self.tokens.max(1) as f64);
        self.value_metric.iter().map(|metric| per_token * metric).collect()
    }
}

/// Queries whose scores are computed together.
fn queries_at_once(scores: usize, heads: usize, sequence: usize) -> usize {
    (scores / (heads * sequence).max(1)).clamp(1, sequence.max(1))
}

/// The tensor with rows of zeros in front.
fn after_zeros(rows: usize, x: Tensor<3>) -> Tensor<3> {
    let [batch, _, columns] = x.dims();
    match rows {
        0 => x,
        _ => Tensor::cat(vec![Tensor::zeros([batch, rows, columns], &x.device()), x], 1),
    }
}

/// Adds `leftᵀ right` of each head, both `[H, T, d]`.
fn add_moments(sums: &mut [Mat<f64>], left: Tensor<3>, right: Tensor<3>) -> Result<(), CoreError> {
    let width = right.dims()[2];
    let moments = host_values(left.swap_dims(1, 2).matmul(right))?; // [H, d, d]
    for (sum, values) in sums.iter_mut().zip(moments.chunks_exact(width * width)) {
        // Symmetric, so rows serve as columns.
        for (column, values) in values.chunks_exact(width).enumerate() {
            let target = sum.col_as_slice_mut(column);
            target.iter_mut().zip(values).for_each(|(t, v)| *t += f64::from(*v));
        }
    }
    Ok(())
}

/// Squared magnitudes of half-split pairs, `[G, T, d]` to `[G, T, d/2]`.
fn pair_powers(keys: Tensor<3>) -> Tensor<3> {
    let pairs = keys.dims()[2] / 2;
    let half = |first: usize| keys.clone().narrow(2, first, pairs).square();
    half(0) + half(pairs)
}

/// Costs `[N, key, query]` of as many keys as queries, rearranged by distance: row `i` of `[N, 2·count, key]` has those of query
/// `key + i - (count - 1)`.
fn by_distance(a: Tensor<3>) -> Tensor<3> {
    let [pieces, count, _] = a.dims();
    // Row-major with count - 1 zeros in front of each row, key x and query i are at x(2·count - 1) + count - 1 + i, which is
    // 2·count·x + (count - 1 + i - x): key x and column count - 1 + i - x with rows of 2·count.
    let padded = after_zeros(count - 1, a.swap_dims(1, 2)).swap_dims(1, 2);
    let flat = padded.reshape([pieces, count * (2 * count - 1), 1]);
    let end = Tensor::zeros([pieces, count, 1], &flat.device());
    Tensor::cat(vec![flat, end], 1)
        .reshape([pieces, count, 2 * count])
        .swap_dims(1, 2)
}

/// Costs `[H, queries, keys]` with those of the first key set to 0.
fn zero_first_key(a: Tensor<3>) -> Tensor<3> {
    let keys = a.dims()[2];
    let keep: Vec<f32> = (0..keys).map(|u| f32::from(u8::from(u > 0))).collect();
    let keep = Tensor::<1>::from_data(TensorData::new(keep, [keys]), &a.device());
    a * keep.unsqueeze()
}
