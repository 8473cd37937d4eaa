//! Attention after RoPE decoupling: one shared rotary key beside per-head keys without position.

use burn::tensor::Tensor;
use transmla_checkpoint::config::AttentionParameters;

use super::heads::{Projected, merge_heads, split_heads};
use super::key_scale::{KeyScale, scaled};
use super::normed::NormedQueries;
use crate::kernels::{attend, repeat_heads};
use crate::model::linear::Linear;
use crate::model::rotary::Rotary;

/// Full-rank attention with decoupled positions (TransMLA, arXiv 2502.07864, section 4.2).
///
/// A head's score is `q_nope · k_nope + q_rope · k_rope`, with the attention parameters of the original. Rotary rows are half-split.
#[derive(Debug, Clone)]
pub struct DecoupledAttention {
    /// Queries.
    pub q: DecoupledQueries,
    /// `[G·d, hidden]`: the keys without position, expanded for each key head.
    pub k_nope: Linear,
    /// `[d_r, hidden]`, shared by all heads.
    pub k_rope: Linear,
    /// The scale of each key head's norm, if it is kept.
    pub key_scale: Option<KeyScale>,
    /// `[G·d, hidden]`.
    pub v: Linear,
    /// `[hidden, H·d]`.
    pub o: Linear,
    /// H.
    pub query_heads: usize,
    /// G, or H where the keys are expanded per query head.
    pub nope_heads: usize,
    /// G.
    pub value_heads: usize,
    /// Scale, soft-cap and window of the scores.
    pub parameters: AttentionParameters,
}

/// How queries come from the hidden state.
#[derive(Debug, Clone)]
pub enum DecoupledQueries {
    /// By one map for each part.
    Linear {
        /// `[H·d, hidden]`.
        nope: Linear,
        /// `[H·d_r, hidden]`.
        rope: Linear,
    },
    /// Through a norm of each head.
    Normed {
        /// `[H·d, hidden]`.
        raw: Linear,
        /// The norm, and the rotary query from what it gives.
        heads: NormedQueries,
    },
}

impl DecoupledQueries {
    /// Both parts of every head, `[batch, H, seq, d]` and, not yet rotated, `[batch, H, seq, d_r]`.
    fn forward(&self, x: Tensor<2>, batch: usize, heads: usize) -> (Tensor<4>, Tensor<4>) {
        match self {
            Self::Linear { nope, rope } => (
                split_heads(nope.forward(x.clone()), batch, heads),
                split_heads(rope.forward(x), batch, heads),
            ),
            Self::Normed { raw, heads: normed } => {
                let both = split_heads(normed.forward(raw.forward(x)), batch, heads);
                let [_, rope, nope] = normed.rope.dims();
                (both.clone().narrow(3, 0, nope), both.narrow(3, nope, rope))
            }
        }
    }
}

impl DecoupledAttention {
    pub(super) fn forward(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Tensor<2> {
        let Projected { q, k, v } = self.project(x, batch, rotary);
        self.o.forward(merge_heads(attend(q, k, v, &self.parameters)))
    }

    pub(super) fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        let heads = self.query_heads;
        let (q_nope, q_rope) = self.q.forward(x.clone(), batch, heads);
        let q_rope = rotary.apply(q_rope);
        let k_nope = split_heads(self.k_nope.forward(x.clone()), batch, self.nope_heads);
        let k_rope = rotary.apply(split_heads(self.k_rope.forward(x.clone()), batch, 1));
        let scales = self.key_scale.as_ref().map(|scale| scale.forward(x.clone(), batch));
        let v = split_heads(self.v.forward(x), batch, self.value_heads);
        Projected {
            q: Tensor::cat(vec![q_nope, q_rope], 3),
            k: scaled(
                Tensor::cat(vec![k_nope, repeat_heads(k_rope, self.nope_heads)], 3),
                scales,
            ),
            v: repeat_heads(v, self.nope_heads),
        }
    }
}
