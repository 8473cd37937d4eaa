//! A model as engines load it, in another number format.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::{ModelConfig, TokenBatch};

use super::layer::DecoderLayer;
use super::layered::LayeredModel;
use super::number_format::NumberFormat;
use super::output_head::OutputHead;
use crate::error::CoreError;

/// A model with its weights rounded to a number format, and with the inputs and outputs of its norms rounded to it too.
///
/// Sums of products stay in single precision, as engines accumulate them.
#[derive(Clone, Copy)]
pub struct RoundedModel<'a> {
    /// The model as it is stored.
    pub model: &'a dyn LayeredModel,
    /// The format that it is loaded in.
    pub format: NumberFormat,
}

impl LayeredModel for RoundedModel<'_> {
    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn device(&self) -> &Device {
        self.model.device()
    }

    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError> {
        self.format.matrix(self.model.embed(tokens)?)
    }

    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        let (layer, format) = (self.model.layer(index)?, self.format);
        Ok(DecoderLayer {
            input_norm: format.optional_norm(layer.input_norm)?,
            attention: format.attention(layer.attention)?,
            attention_output_norm: format.optional_norm(layer.attention_output_norm)?,
            feed_forward_norm: format.optional_norm(layer.feed_forward_norm)?,
            mlp: layer.mlp.rounded(format)?,
            feed_forward_output_norm: format.optional_norm(layer.feed_forward_output_norm)?,
        })
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        let format = self.format;
        self.model
            .head()?
            .map(|norm| format.norm(norm), |projection| format.linear(projection))
    }
}
