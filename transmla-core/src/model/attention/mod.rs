//! The three kinds of attention: grouped-query, RoPE-decoupled and latent.

mod decoupled;
mod grouped;
mod latent;

pub use decoupled::DecoupledAttention;
pub use grouped::GroupedAttention;
pub use latent::{LatentAttention, QueryProjection};

use burn::tensor::module::attention as fused_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor};

use super::cache::LayerCache;
use super::rotary::Rotary;

/// Attention of one layer.
#[expect(
    clippy::large_enum_variant,
    reason = "a model has a few dozen; they hold handles of its weights"
)]
#[derive(Debug, Clone)]
pub enum Attention {
    /// As in the original model.
    Grouped(GroupedAttention),
    /// After RoPE decoupling, before the low-rank step.
    Decoupled(DecoupledAttention),
    /// As in the converted model.
    Latent(LatentAttention),
}

impl Attention {
    /// `[batch·seq, hidden]` to `[batch·seq, hidden]`, causal.
    ///
    /// With a cache the new tokens attend to the cached ones too; the cache kind must be the attention's own.
    pub fn forward(&self, x: Tensor<2>, batch: usize, rotary: &Rotary, cache: Option<&mut LayerCache>) -> Tensor<2> {
        match self {
            Self::Grouped(attention) => attention.forward(x, batch, rotary, cache),
            Self::Decoupled(attention) => attention.forward(x, batch, rotary),
            Self::Latent(attention) => attention.forward(x, batch, rotary, cache),
        }
    }
}

/// `[batch·seq, heads·width]` to `[batch, heads, seq, width]`.
fn split_heads(x: Tensor<2>, batch: usize, heads: usize) -> Tensor<4> {
    let [rows, width] = x.dims();
    x.reshape([batch, rows / batch, heads, width / heads]).swap_dims(1, 2)
}

/// `[batch, heads, seq, width]` to `[batch·seq, heads·width]`.
fn merge_heads(x: Tensor<4>) -> Tensor<2> {
    let [batch, heads, sequence, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch * sequence, heads * width])
}

/// Repeats each of G heads for the query heads that share it: `[batch, G, seq, width]` to `[batch, H, seq, width]`.
fn repeat_heads(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, groups, sequence, width] = x.dims();
    if groups == heads {
        return x;
    }
    x.unsqueeze_dim::<5>(2)
        .expand([batch, groups, heads / groups, sequence, width])
        .reshape([batch, heads, sequence, width])
}

/// Softmax attention with scale `width^-1/2`; query row i sees keys up to `past + i`.
///
/// q `[batch, heads, new, width]`, k `[batch, heads, past + new, width]`, v `[batch, heads, past + new, d_v]`.
fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let new = q.dims()[2];
    let past = k.dims()[2] - new;
    let (mask, is_causal) = match (past, new) {
        (0, _) => (None, true),
        (_, 1) => (None, false),
        _ => (Some(future_mask(new, past, &q.device()).unsqueeze()), false),
    };
    let options = AttentionModuleOptions {
        is_causal,
        ..Default::default()
    };
    fused_attention(q, k, v, mask, None, options)
}

/// True where a key lies in the future: `[new, past + new]`.
fn future_mask(new: usize, past: usize, device: &burn::tensor::Device) -> Tensor<2, Bool> {
    Tensor::<2, Bool>::tril_mask([new, past + new], past as i64, device)
}
