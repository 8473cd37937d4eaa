//! The attention of a layer, of whichever kind it is.

use burn::tensor::Tensor;
use transmla_checkpoint::config::AttentionParameters;

use super::decoupled::DecoupledAttention;
use super::grouped::GroupedAttention;
use super::heads::{Projected, merge_heads};
use super::latent::LatentAttention;
use crate::kernels::among_threads;
use crate::model::cache::LayerCache;
use crate::model::rotary::Rotary;

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
        among_threads(&x.device(), || match self {
            Self::Grouped(attention) => attention.forward(x, batch, rotary, cache),
            Self::Decoupled(attention) => attention.forward(x, batch, rotary),
            Self::Latent(attention) => attention.forward(x, batch, rotary, cache),
        })
    }

    /// The part before the softmax: `[batch·seq, hidden]` to queries, keys and values.
    pub fn project(&self, x: Tensor<2>, batch: usize, rotary: &Rotary) -> Projected {
        match self {
            Self::Grouped(attention) => attention.project(x, batch, rotary),
            Self::Decoupled(attention) => attention.project(x, batch, rotary),
            Self::Latent(attention) => attention.project(x, batch, rotary),
        }
    }

    /// Its attention parameters.
    pub fn parameters(&self) -> &AttentionParameters {
        match self {
            Self::Grouped(attention) => &attention.parameters,
            Self::Decoupled(attention) => &attention.parameters,
            Self::Latent(attention) => &attention.parameters,
        }
    }

    /// The part after the softmax: `[batch, H, seq, d_v]` to `[batch·seq, hidden]`.
    pub fn combine(&self, attended: Tensor<4>) -> Tensor<2> {
        let o = match self {
            Self::Grouped(attention) => &attention.o,
            Self::Decoupled(attention) => &attention.o,
            Self::Latent(attention) => &attention.o,
        };
        o.forward(merge_heads(attended))
    }
}
