//! Grouped-query attention (Ainslie et al., arXiv 2305.13245); multi-head attention is one query head per key head.

use burn::tensor::{Device, Tensor};

use super::{Projected, causal_attention, merge_heads, split_heads};
use crate::config::GroupedConfig;
use crate::model::cache::LayerCache;
use crate::model::linear::Linear;
use crate::model::rotary::Rotary;
use crate::{Checkpoint, CoreError, ModelConfig};

/// Attention with H query heads over G key/value heads.
#[derive(Debug, Clone)]
pub struct GroupedAttention {
    /// `[H·d, hidden]`.
    pub q: Linear,
    /// `[G·d, hidden]`.
    pub k: Linear,
    /// `[G·d, hidden]`.
    pub v: Linear,
    /// `[hidden, H·d]`.
    pub o: Linear,
    /// H.
    pub query_heads: usize,
    /// G.
    pub key_heads: usize,
}

impl GroupedAttention {
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: &ModelConfig,
        grouped: &GroupedConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let hidden = config.hidden_size;
        let (queries, keys) = (config.num_attention_heads * grouped.head_dim, grouped.key_width());
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        Ok(Self {
            q: read("q_proj", [queries, hidden])?,
            k: read("k_proj", [keys, hidden])?,
            v: read("v_proj", [keys, hidden])?,
            o: read("o_proj", [hidden, queries])?,
            query_heads: config.num_attention_heads,
            key_heads: grouped.num_key_value_heads,
        })
    }

    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        rotary: &Rotary,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let Projected { q, mut k, mut v } = self.project(x, batch, rotary);
        if let Some(LayerCache::Grouped { keys, values }) = cache {
            k = keys.append(k);
            v = values.append(v);
        }
        self.o.forward(merge_heads(causal_attention(q, k, v)))
    }

    pub(super) fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        Projected {
            q: rotary.apply(split_heads(self.q.forward(x.clone()), batch, self.query_heads)),
            k: rotary.apply(split_heads(self.k.forward(x.clone()), batch, self.key_heads)),
            v: split_heads(self.v.forward(x), batch, self.key_heads),
        }
    }
}
