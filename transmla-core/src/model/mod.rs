//! The decoder: layers, the kinds of attention, KV caches.

mod absorbed;
pub mod attention;
mod backward;
mod cache;
mod cached_rows;
mod decoder;
mod experts;
mod headers;
mod layer;
mod linear;
mod mlp;
mod rotary;
mod rounded;
mod tensors;
mod tokens;

pub use backward::{AttentionBackward, RecordedAttention};
pub use cache::{KvCache, LayerCache};
pub use cached_rows::CachedRows;
pub use decoder::{Decoder, OutputHead, Residency};
pub use experts::Experts;
pub use headers::{check_headers, unused_tensors};
pub use layer::{DecoderLayer, layer_prefix};
pub use linear::{Linear, RmsNorm};
pub use mlp::{FeedForwardLayer, Mlp};
pub use rotary::Rotary;
pub use rounded::{NumberFormat, RoundedModel};
pub use tensors::{attention_tensors, carried_tensors, is_attention_tensor, model_tensors, residual_tensors};
pub use tokens::TokenBatch;

use burn::tensor::{Device, Tensor};

use crate::{CoreError, ModelConfig};

/// A model as a sequence of layers: what calibration and evaluation are written against.
pub trait LayeredModel {
    /// Its configuration.
    fn config(&self) -> &ModelConfig;

    /// Where it computes.
    fn device(&self) -> &Device;

    /// Token embeddings, `[batch, seq, hidden]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or an embedding row that is not finite.
    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError>;

    /// One layer; a streamed model reads it now.
    ///
    /// # Errors
    /// A tensor of the layer cannot be read.
    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError>;

    /// Final norm and output projection.
    ///
    /// # Errors
    /// Its tensors cannot be read.
    fn head(&self) -> Result<OutputHead, CoreError>;
}
