//! Attention after RoPE decoupling: one shared rotary key beside per-head keys without position.

use burn::tensor::Tensor;

use super::{Projected, causal_attention, merge_heads, split_heads};
use crate::kernels::repeat_heads;
use crate::model::linear::Linear;
use crate::model::rotary::Rotary;

/// Full-rank attention with decoupled positions (TransMLA, arXiv 2502.07864, section 4.2).
///
/// A head's score is `(q_nope · k_nope + q_rope · k_rope) · (d + d_r)^-1/2`; whoever builds it scales the queries so that
/// the original scale results. Rotary rows are half-split.
#[derive(Debug, Clone)]
pub struct DecoupledAttention {
    /// `[H·d, hidden]`.
    pub q_nope: Linear,
    /// `[H·d_r, hidden]`.
    pub q_rope: Linear,
    /// `[G·d, hidden]`: the keys without position, expanded for each key head.
    pub k_nope: Linear,
    /// `[d_r, hidden]`, shared by all heads.
    pub k_rope: Linear,
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
}

impl DecoupledAttention {
    pub(super) fn forward(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Tensor<2> {
        let Projected { q, k, v } = self.project(x, batch, rotary);
        self.o.forward(merge_heads(causal_attention(q, k, v)))
    }

    pub(super) fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        let heads = self.query_heads;
        let q_nope = split_heads(self.q_nope.forward(x.clone()), batch, heads);
        let q_rope = rotary.apply(split_heads(self.q_rope.forward(x.clone()), batch, heads));
        let k_nope = split_heads(self.k_nope.forward(x.clone()), batch, self.nope_heads);
        let k_rope = rotary.apply(split_heads(self.k_rope.forward(x.clone()), batch, 1));
        let v = split_heads(self.v.forward(x), batch, self.value_heads);
        Projected {
            q: Tensor::cat(vec![q_nope, q_rope], 3),
            k: Tensor::cat(vec![k_nope, repeat_heads(k_rope, self.nope_heads)], 3),
            v: repeat_heads(v, self.nope_heads),
        }
    }
}
