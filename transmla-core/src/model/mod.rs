//! The decoder: layers, the kinds of attention, KV caches.

mod absorbed;
pub mod attention;
mod backward;
mod cache;
mod cached_rows;
mod decoder;
mod expert_gradient;
mod expert_place;
mod experts;
mod feed_forward;
mod formats;
mod latent_basis;
mod layer;
mod layer_gradients;
mod layered;
mod linear;
mod mlp;
mod number_format;
mod output_head;
mod output_loss;
mod parameters;
mod residual_norm;
mod rotary;
mod rounded;

pub use backward::{AttentionBackward, RecordedAttention};
pub use cache::{KvCache, LayerCache};
pub use cached_rows::CachedRows;
pub use decoder::{Decoder, Residency};
pub use experts::Experts;
pub use feed_forward::FeedForwardLayer;
pub use layer::DecoderLayer;
pub use layer_gradients::LayerGradients;
pub use layered::LayeredModel;
pub use linear::{Linear, RmsNorm};
pub use mlp::Mlp;
pub use number_format::NumberFormat;
pub use output_head::OutputHead;
pub use output_loss::{LossSums, LossWeights, TeacherRows, TopLogits};
pub use parameters::{EachProjection, Projections};
pub use rotary::{LayerRotary, Rotary};
pub use rounded::RoundedModel;
pub use transmla_checkpoint::TokenBatch;
pub use transmla_checkpoint::layout::{
    attention_tensors, carried_tensors, check_headers, is_attention_tensor, layer_prefix, model_tensors,
    residual_tensors, unused_tensors,
};
