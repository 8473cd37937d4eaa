//! A model as a sequence of layers.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::{ModelConfig, TokenBatch};

use super::layer::DecoderLayer;
use super::output_head::OutputHead;
use crate::error::CoreError;

/// A model as a sequence of layers: what calibration and evaluation are written against.
pub trait LayeredModel {
    /// Its configuration.
    fn config(&self) -> &ModelConfig;

    /// The device that it computes on.
    fn device(&self) -> &Device;

    /// Token embeddings, `[batch, seq, hidden]`.
    ///
    /// # Errors
    /// A token outside the vocabulary, or an embedding row that is not finite.
    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError>;

    /// One layer, which a streamed model reads on each call.
    ///
    /// # Errors
    /// [`CoreError::NoSuchLayer`] for an index out of range; a tensor of the layer cannot be read.
    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError>;

    /// Final norm and output projection.
    ///
    /// # Errors
    /// Its tensors cannot be read.
    fn head(&self) -> Result<OutputHead, CoreError>;
}
