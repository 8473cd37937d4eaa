//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in expanded and absorbed form.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::config::{AttentionParameters, LatentConfig};
use transmla_checkpoint::layout::layer_prefix;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::heads::{Projected, merge_heads, split_heads};
use super::key_scale::{KeyScale, scaled};
use super::normed::NormedQueries;
use super::rope_order::rope_order;
use crate::error::CoreError;
use crate::kernels::{CachedValues, attend, decode_tensors, repeat_heads};
use crate::model::absorbed::AbsorbedUp;
use crate::model::cache::LayerCache;
use crate::model::cached_rows::CachedRows;
use crate::model::linear::{Linear, RmsNorm};
use crate::model::rotary::Rotary;

/// How queries come from the hidden state.
#[expect(
    clippy::large_enum_variant,
    reason = "a model has a few dozen; they hold handles of its weights"
)]
#[derive(Debug, Clone)]
pub enum QueryProjection {
    /// `q_proj`, `[H·(d + d_r), hidden]`.
    Plain(Linear),
    /// `q_a_proj`, `q_a_layernorm`, `q_b_proj`.
    Lora {
        /// `[q_lora_rank, hidden]`.
        down: Linear,
        /// Norm of the query latent, if the model has one.
        norm: Option<RmsNorm>,
        /// `[H·(d + d_r), q_lora_rank]`.
        up: Linear,
    },
}

impl QueryProjection {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Plain(linear) => linear.forward(x),
            Self::Lora { down, norm, up } => {
                let latent = down.forward(x);
                up.forward(match norm {
                    Some(norm) => norm.forward(latent),
                    None => latent,
                })
            }
        }
    }
}

/// What is cached of some tokens.
#[derive(Debug, Clone)]
struct Compressed {
    /// The latent of each group, normalised if the model does that, `[batch, groups, tokens, r]`.
    latent: Tensor<4>,
    /// The rotated key that the heads of a group share, `[batch, groups, tokens, d_r]`.
    rope: Tensor<4>,
    /// The scales of the keys' norm, `[batch, 1, tokens, scales]`.
    scales: Option<Tensor<4>>,
}

impl Compressed {
    /// As the cache has it, `[batch, groups, tokens, r + d_r (+ scales)]`.
    fn row(self) -> Tensor<4> {
        let mut parts = vec![self.latent, self.rope];
        parts.extend(self.scales);
        Tensor::cat(parts, 3)
    }
}

/// Attention through a shared latent of width r and a shared rotary key of width d_r.
///
/// With several groups (grouped latent attention, Zadouri, Strauss and Dao, arXiv 2505.21487) each has a latent and a rotary key for its
/// heads, which follow each other; `kv_down` has a block of rows for each. Tied (grouped tied attention, the same source), a latent is
/// its heads' value and key without position as it is, and `kv_up` is nothing: d, d_v and r are one width.
#[derive(Debug, Clone)]
pub struct LatentAttention {
    /// Queries, `[H·(d + d_r)]`, rotary rows half-split; `[H·d]` if they are normalised.
    pub q: QueryProjection,
    /// The norm of the queries, and the rotary queries after it.
    pub q_heads: Option<NormedQueries>,
    /// The scales of the keys' norm, if the model keeps it.
    pub key_scale: Option<KeyScale>,
    /// `kv_a_proj_with_mqa`, for each group `[r + d_r, hidden]`, rotary rows half-split.
    pub kv_down: Linear,
    /// `kv_a_layernorm`, if the model has one.
    pub kv_norm: Option<RmsNorm>,
    /// What the latent is multiplied by behind its norm, `[r, r]`; mostly nothing. `kv_up` has the inverse.
    pub latent_map: Option<Tensor<2>>,
    /// `kv_b_proj`, `[H·(d + d_v), r]`: per head d key rows, then d_v value rows. Nothing where latents are tied.
    pub kv_up: Option<Linear>,
    /// `o_proj`, `[hidden, H·d_v]`.
    pub o: Linear,
    /// H.
    pub heads: usize,
    /// Shapes.
    pub shape: LatentConfig,
    /// Scale, soft-cap and window of the scores.
    pub parameters: AttentionParameters,
}

impl LatentAttention {
    /// Reads the attention of a layer, of the shapes of `latent`.
    ///
    /// # Errors
    /// A tensor is absent, has another shape than the configuration implies, or holds NaN.
    pub fn read(
        checkpoint: &Checkpoint,
        layer: usize,
        config: &ModelConfig,
        latent: &LatentConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let prefix = format!("{}.self_attn", layer_prefix(layer));
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        let norm = |name: &str, width| {
            latent
                .latent_norm_eps
                .map(|eps| RmsNorm::read(checkpoint, &format!("{prefix}.{name}"), width, eps, device))
                .transpose()
        };
        let (nope, rope, layout) = (
            latent.qk_nope_head_dim,
            latent.qk_rope_head_dim,
            config.rope.of(layer).layout,
        );
        let (query_rows, query_order, q_heads) = match config.family.qk_norm.width(heads, nope) {
            None => (
                heads * latent.query_width(),
                rope_order(layout, heads, nope, rope),
                None,
            ),
            Some(width) => {
                let norm = format!("{prefix}.q_norm");
                let norm = RmsNorm::read(checkpoint, &norm, width, config.rms_norm_eps, device)?;
                let normed = NormedQueries::read(checkpoint, &prefix, [heads, rope, nope], norm, layout, device)?;
                (heads * nope, (0..heads * nope).collect(), Some(normed))
            }
        };
        let q = match latent.q_lora_rank {
            None => QueryProjection::Plain(read("q_proj", [query_rows, hidden])?.select_outputs(&query_order)),
            Some(rank) => QueryProjection::Lora {
                down: read("q_a_proj", [rank, hidden])?,
                norm: norm("q_a_layernorm", rank)?,
                up: read("q_b_proj", [query_rows, rank])?.select_outputs(&query_order),
            },
        };
        let key_scale = KeyScale::read(checkpoint, &prefix, config, latent, device)?;
        let rank = latent.kv_lora_rank;
        let key_order = rope_order(layout, latent.latent_groups, rank, rope);
        let kv_up = || read("kv_b_proj", [heads * (nope + latent.v_head_dim), rank]);
        Ok(Self {
            q,
            q_heads,
            key_scale,
            kv_down: read("kv_a_proj_with_mqa", [latent.down_rows(), hidden])?.select_outputs(&key_order),
            kv_norm: norm("kv_a_layernorm", rank)?,
            latent_map: None,
            kv_up: (!latent.tied).then(kv_up).transpose()?,
            o: read("o_proj", [hidden, heads * latent.v_head_dim])?.times(config.residual_multiplier),
            heads,
            shape: latent.clone(),
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
        let (q_nope, q_rope) = self.queries(x.clone(), batch, rotary);
        let new = self.compress(x, batch, rotary);
        let attended = match cache {
            Some(LayerCache::Latent { rows }) => {
                let first = rows.is_empty();
                rows.append(new.clone().row());
                // Every token sees what is kept, its own row included, however a text is cut.
                match first && rows.format().is_exact() {
                    true => self.expanded(q_nope, q_rope, new),
                    false => self.absorbed(q_nope, q_rope, rows),
                }
            }
            _ => self.expanded(q_nope, q_rope, new),
        };
        self.o.forward(merge_heads(attended))
    }

    pub(super) fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        let (q_nope, q_rope) = self.queries(x.clone(), batch, rotary);
        self.expand(q_nope, q_rope, self.compress(x, batch, rotary))
    }

    /// The same attention, its tensors constants of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            q: match self.q {
                QueryProjection::Plain(linear) => QueryProjection::Plain(linear.autodiff()),
                QueryProjection::Lora { down, norm, up } => QueryProjection::Lora {
                    down: down.autodiff(),
                    norm: norm.map(RmsNorm::autodiff),
                    up: up.autodiff(),
                },
            },
            q_heads: self.q_heads.map(|heads| NormedQueries {
                norm: heads.norm.autodiff(),
                rope: heads.rope.autodiff(),
            }),
            key_scale: self.key_scale.map(KeyScale::autodiff),
            kv_down: self.kv_down.autodiff(),
            kv_norm: self.kv_norm.map(RmsNorm::autodiff),
            latent_map: self.latent_map.map(Tensor::autodiff),
            kv_up: self.kv_up.map(Linear::autodiff),
            o: self.o.autodiff(),
            ..self
        }
    }

    /// Queries without position, `[batch, H, seq, d]`, and rotated ones, `[batch, H, seq, d_r]`.
    fn queries(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> (Tensor<4>, Tensor<4>) {
        let (nope, rope) = (self.shape.qk_nope_head_dim, self.shape.qk_rope_head_dim);
        let q = self.q.forward(x);
        let q = match &self.q_heads {
            Some(heads) => heads.forward(q),
            None => q,
        };
        let q = split_heads(q, batch, self.heads);
        (q.clone().narrow(3, 0, nope), rotary.apply(q.narrow(3, nope, rope)))
    }

    /// What the cache keeps of each token.
    fn compress(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Compressed {
        let (rank, rope, groups) = (
            self.shape.kv_lora_rank,
            self.shape.qk_rope_head_dim,
            self.shape.latent_groups,
        );
        let down = self.kv_down.forward(x.clone()); // [batch·seq, groups·(r + d_r)]
        let [tokens, _] = down.dims();
        let down = down.reshape([tokens * groups, rank + rope]);
        let mut latent = down.clone().narrow(1, 0, rank);
        if let Some(norm) = &self.kv_norm {
            latent = norm.forward(latent);
        }
        if let Some(map) = &self.latent_map {
            latent = latent.matmul(map.clone().transpose());
        }
        let of_groups = |rows: Tensor<2>| {
            let width = rows.dims()[1];
            split_heads(rows.reshape([tokens, groups * width]), batch, groups)
        };
        Compressed {
            latent: of_groups(latent),
            rope: rotary.apply(of_groups(down.narrow(1, rank, rope))),
            scales: self.key_scale.as_ref().map(|scale| scale.forward(x, batch)),
        }
    }

    /// The parts of cached rows, `[batch, groups, tokens, r + d_r (+ scales)]`.
    fn parts(&self, cached: Tensor<4>) -> Compressed {
        let (rank, rope) = (self.shape.kv_lora_rank, self.shape.qk_rope_head_dim);
        let part = |start, width| cached.clone().narrow(3, start, width);
        Compressed {
            latent: part(0, rank),
            rope: part(rank, rope),
            scales: self.shape.key_norm_heads.map(|heads| part(rank + rope, heads)),
        }
    }

    /// Keys and values are made from the latent: the cheaper form where many tokens are new.
    fn expand(&self, q_nope: Tensor<4>, q_rope: Tensor<4>, cached: Compressed) -> Projected {
        let Compressed { latent, rope, scales } = cached;
        let q = Tensor::cat(vec![q_nope, q_rope], 3);
        let Some(up) = &self.kv_up else {
            // Key heads of as many groups, whose keys begin with their values.
            return Projected {
                q,
                k: scaled(Tensor::cat(vec![latent.clone(), rope], 3), scales),
                v: latent,
            };
        };
        let nope = self.shape.qk_nope_head_dim;
        let kv = self.raised(up, latent); // [batch, H, seq, d + d_v]
        let k_nope = kv.clone().narrow(3, 0, nope);
        Projected {
            q,
            k: scaled(Tensor::cat(vec![k_nope, repeat_heads(rope, self.heads)], 3), scales),
            v: kv.narrow(3, nope, self.shape.v_head_dim),
        }
    }

    /// Keys without position and values of all heads, `[batch, H, seq, d + d_v]`, of the latents of their groups.
    fn raised(&self, up: &Linear, latent: Tensor<4>) -> Tensor<4> {
        let [batch, groups, sequence, rank] = latent.dims();
        if groups == 1 {
            return split_heads(up.forward(merge_heads(latent)), batch, self.heads);
        }
        let (heads, width) = (self.heads, self.shape.qk_nope_head_dim + self.shape.v_head_dim);
        let shared = heads / groups;
        let weight = up.weight.clone().reshape([1, groups, shared * width, rank]);
        let weight = weight.swap_dims(2, 3).expand([batch, groups, rank, shared * width]);
        let raised = latent.matmul(weight).reshape([batch, groups, sequence, shared, width]);
        let raised = raised.swap_dims(2, 3).reshape([batch, heads, sequence, width]);
        match &up.bias {
            None => raised,
            Some(bias) => raised + bias.clone().reshape([1, heads, 1, width]),
        }
    }

    /// Whether many new tokens make it cheaper to expand all cached latents than to attend to them as they are: operations
    /// per cached token and head.
    fn expansion_pays(&self, new: usize) -> bool {
        let LatentConfig {
            kv_lora_rank: rank,
            qk_nope_head_dim: nope,
            qk_rope_head_dim: rope,
            v_head_dim: value,
            ..
        } = self.shape;
        !self.shape.tied && new * (2 * rank + rope) > rank * (nope + value) + new * (nope + rope + value)
    }

    fn expanded(&self, q_nope: Tensor<4>, q_rope: Tensor<4>, cached: Compressed) -> Tensor<4> {
        let Projected { q, k, v } = self.expand(q_nope, q_rope, cached);
        attend(q, k, v, &self.parameters)
    }

    /// Queries and outputs go through `kv_b_proj` instead of keys and values: attention reads `r + d_r` numbers a token (and scales).
    ///
    /// `[batch, H, new, d]` and `[batch, H, new, d_r]` of the newest cached tokens to `[batch, H, new, d_v]`.
    fn absorbed(&self, q_nope: Tensor<4>, q_rope: Tensor<4>, rows: &CachedRows) -> Tensor<4> {
        let [batch, heads, new, nope] = q_nope.dims();
        let (rank, value) = (self.shape.kv_lora_rank, self.shape.v_head_dim);
        let even = rows.lengths().windows(2).all(|pair| pair[0] == pair[1]);
        if even
            && self.expansion_pays(new)
            && let Some(cached) = rows.tensor(&q_nope.device())
        {
            return self.expanded(q_nope, q_rope, self.parts(cached));
        }
        if rows.host().is_some() {
            let up = AbsorbedUp::new(self.kv_up.as_ref().map(|up| &up.weight), &self.shape);
            if let Some(attended) = up.and_then(|up| up.attend(q_nope.clone(), q_rope.clone(), rows, &self.parameters))
            {
                return attended;
            }
        }
        let Some(cached) = rows.kept_tensor(&q_nope.device()) else {
            // Nothing was cached: there is nothing to see.
            return Tensor::zeros([batch, heads, new, value], &q_nope.device());
        };
        let values = match self.shape.key_norm_heads {
            None => CachedValues::InKeys(rank),
            Some(scales) => CachedValues::InScaledKeys { width: rank, scales },
        };
        let decode = |q_nope, q_rope| {
            decode_tensors(
                Tensor::cat(vec![q_nope, q_rope], 3),
                cached,
                values,
                rows.lengths(),
                &self.parameters,
            )
        };
        let Some(up) = &self.kv_up else {
            return decode(q_nope, q_rope);
        };
        let up = up.weight.clone().reshape([1, heads, nope + value, rank]);
        let key_up = up.clone().narrow(2, 0, nope).expand([batch, heads, nope, rank]);
        let value_up = up.narrow(2, nope, value).swap_dims(2, 3); // [1, H, r, d_v]
        decode(q_nope.matmul(key_up), q_rope).matmul(value_up.expand([batch, heads, rank, value]))
    }
}
