//! One decoder layer: attention and MLP around a residual stream.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::config::NormPlacement;
use transmla_checkpoint::layout::layer_prefix;
use transmla_checkpoint::{AttentionConfig, Checkpoint, ModelConfig};

use super::attention::grouped::GroupedAttention;
use super::attention::kind::Attention;
use super::attention::latent::LatentAttention;
use super::cache::LayerCache;
use super::feed_forward::FeedForwardLayer;
use super::linear::RmsNorm;
use super::residual_norm::residual_norm;
use super::rotary::Rotary;
use crate::error::CoreError;

/// A decoder layer with norms before attention and MLP, and possibly behind both. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// `input_layernorm`, before attention.
    pub input_norm: RmsNorm,
    /// `self_attn`.
    pub attention: Attention,
    /// Behind attention: Gemma's `post_attention_layernorm`.
    pub attention_output_norm: Option<RmsNorm>,
    /// Before the MLP: `post_attention_layernorm`, or Gemma's `pre_feedforward_layernorm`.
    pub feed_forward_norm: RmsNorm,
    /// `mlp`, or `block_sparse_moe`.
    pub mlp: FeedForwardLayer,
    /// Behind the MLP: Gemma's `post_feedforward_layernorm`.
    pub feed_forward_output_norm: Option<RmsNorm>,
}

impl DecoderLayer {
    /// Reads layer `index` onto a device.
    ///
    /// # Errors
    /// A tensor is absent, has another shape than the configuration implies, or holds NaN.
    pub fn read(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        index: usize,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let prefix = layer_prefix(index);
        let norm = |name: &str| residual_norm(checkpoint, &format!("{prefix}.{name}"), config, device);
        let attention = match &config.attention {
            AttentionConfig::Grouped(grouped) => {
                Attention::Grouped(GroupedAttention::read(checkpoint, index, config, grouped, device)?)
            }
            AttentionConfig::Latent(latent) => {
                Attention::Latent(LatentAttention::read(checkpoint, index, config, latent, device)?)
            }
        };
        let (attention_output_norm, feed_forward_norm, feed_forward_output_norm) = match config.family.norm_placement {
            NormPlacement::Before => (None, norm("post_attention_layernorm")?, None),
            NormPlacement::Around => (
                Some(norm("post_attention_layernorm")?),
                norm("pre_feedforward_layernorm")?,
                Some(norm("post_feedforward_layernorm")?),
            ),
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            attention,
            attention_output_norm,
            feed_forward_norm,
            mlp: FeedForwardLayer::read(checkpoint, &prefix, config, device)?,
            feed_forward_output_norm,
        })
    }

    /// What the attention of this layer sees: the normalised residual stream, `[batch·seq, hidden]`.
    pub fn attention_input(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.input_norm.forward(hidden.flatten(0, 1))
    }

    /// Residual stream `[batch, seq, hidden]` after this layer.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails while experts are chosen.
    pub fn forward(
        &self,
        hidden: Tensor<3>,
        rotary: &Rotary,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor<3>, CoreError> {
        let input = self.attention_input(hidden.clone());
        self.forward_from_input(hidden, input, rotary, cache)
    }

    /// As [`Self::forward`], with [`Self::attention_input`] already computed.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_from_input(
        &self,
        hidden: Tensor<3>,
        input: Tensor<2>,
        rotary: &Rotary,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor<3>, CoreError> {
        let [batch, sequence, width] = hidden.dims();
        let attended = self.attention.forward(input, batch, rotary, cache);
        let hidden = self.add_attention(hidden.flatten(0, 1), attended);
        Ok(self.feed_forward(hidden)?.reshape([batch, sequence, width]))
    }

    /// The residual stream plus the attention's output, all `[rows, hidden]`.
    pub fn add_attention(&self, hidden: Tensor<2>, attended: Tensor<2>) -> Tensor<2> {
        hidden + through(self.attention_output_norm.as_ref(), attended)
    }

    /// The second half of the layer: the residual stream `[rows, hidden]` from after attention to after the MLP.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn feed_forward(&self, hidden: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        let fed = self.mlp.forward(self.feed_forward_norm.forward(hidden.clone()))?;
        Ok(hidden + through(self.feed_forward_output_norm.as_ref(), fed))
    }
}

fn through(norm: Option<&RmsNorm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
