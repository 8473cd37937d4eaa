//! Grouped-query attention (Ainslie et al., arXiv 2305.13245); multi-head attention is one query head per key head.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::config::{AttentionParameters, GroupedConfig};
use transmla_checkpoint::layout::layer_prefix;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::heads::{Projected, merge_heads, split_heads};
use super::normed::normalise_parts;
use crate::error::CoreError;
use crate::host::HostNumbers;
use crate::kernels::{CachedValues, DecodeShape, attend, decode, decode_tensors};
use crate::model::cache::LayerCache;
use crate::model::cached_rows::CachedRows;
use crate::model::linear::{Linear, RmsNorm};
use crate::model::residual_norm::family_norm;
use crate::model::rotary::Rotary;

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
    /// `q_norm`, on queries before RoPE: `[d]` on each head's, `[H·d]` on those of all heads.
    pub q_norm: Option<RmsNorm>,
    /// `k_norm`, on keys before RoPE: `[d]` on each head's, `[G·d]` on those of all heads.
    pub k_norm: Option<RmsNorm>,
    /// Scale, soft-cap and window of the scores.
    pub parameters: AttentionParameters,
}

impl GroupedAttention {
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        layer: usize,
        config: &ModelConfig,
        grouped: &GroupedConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let prefix = format!("{}.self_attn", layer_prefix(layer));
        let hidden = config.hidden_size;
        let norm = |name: &str, heads| {
            let width = config.family.qk_norm.width(heads, grouped.head_dim);
            let read = |width| family_norm(checkpoint, &format!("{prefix}.{name}"), width, config, device);
            width.map(read).transpose()
        };
        let (queries, keys) = (config.num_attention_heads * grouped.head_dim, grouped.key_width());
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        Ok(Self {
            q: read("q_proj", [queries, hidden])?,
            k: read("k_proj", [keys, hidden])?,
            v: read("v_proj", [keys, hidden])?,
            o: read("o_proj", [hidden, queries])?.times(config.residual_multiplier),
            query_heads: config.num_attention_heads,
            key_heads: grouped.num_key_value_heads,
            q_norm: norm("q_norm", config.num_attention_heads)?,
            k_norm: norm("k_norm", grouped.num_key_value_heads)?,
            parameters: config.attention_parameters(layer),
        })
    }

    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        batch: usize,
        rotary: &Rotary,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<2> {
        let Projected { q, k, v } = self.project(x, batch, rotary);
        let attended = match cache {
            Some(LayerCache::Grouped { keys, values }) => {
                let first = keys.is_empty();
                keys.append(k.clone());
                values.append(v.clone());
                // Every token sees what is kept, its own key and value included, however a text is cut.
                match (first, keys.format().is_exact()) {
                    (true, true) => attend(q, k, v, &self.parameters),
                    (true, false) => {
                        let kept = |rows: &CachedRows, new| rows.tensor(&q.device()).unwrap_or(new);
                        let (k, v) = (kept(keys, k), kept(values, v));
                        attend(q, k, v, &self.parameters)
                    }
                    (false, _) => self.attend_cached(q, keys, values),
                }
            }
            _ => attend(q, k, v, &self.parameters),
        };
        self.o.forward(merge_heads(attended))
    }

    /// `[batch, H, new, d]` of the newest cached tokens to the same shape.
    fn attend_cached(&self, q: Tensor<4>, keys: &CachedRows, values: &CachedRows) -> Tensor<4> {
        let [batch, heads, new, width] = q.dims();
        if let Some(cached) = keys.cached_heads(Some(values))
            && let Some(q) = HostNumbers::of(q.clone())
        {
            let shape = DecodeShape {
                shared: heads / self.key_heads,
                new,
                width,
                value_width: width,
                scales: 0,
            };
            let attended = decode(&shape, &self.parameters, q.as_slice(), &cached);
            return Tensor::from_data(TensorData::new(attended, [batch, heads, new, width]), &Device::flex());
        }
        let device = q.device();
        match (keys.kept_tensor(&device), values.kept_tensor(&device)) {
            (Some(k), Some(v)) => decode_tensors(q, k, CachedValues::Apart(v), keys.lengths(), &self.parameters),
            // Nothing was cached: there is nothing to see.
            _ => q.zeros_like(),
        }
    }

    pub(super) fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        Projected {
            q: rotary.apply(split_heads(self.queries(x.clone()), batch, self.query_heads)),
            k: rotary.apply(split_heads(self.keys(x.clone()), batch, self.key_heads)),
            v: split_heads(self.v.forward(x), batch, self.key_heads),
        }
    }

    /// Queries before RoPE, normalised if the model does that: `[rows, hidden]` to `[rows, H·d]`.
    pub fn queries(&self, x: Tensor<2>) -> Tensor<2> {
        normalised(self.q.forward(x), self.q_norm.as_ref())
    }

    /// Keys before RoPE, normalised if the model does that: `[rows, hidden]` to `[rows, G·d]`.
    pub fn keys(&self, x: Tensor<2>) -> Tensor<2> {
        normalised(self.k.forward(x), self.k_norm.as_ref())
    }
}

fn normalised(x: Tensor<2>, norm: Option<&RmsNorm>) -> Tensor<2> {
    match norm {
        Some(norm) => normalise_parts(norm, x),
        None => x,
    }
}
