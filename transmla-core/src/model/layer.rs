//! One decoder layer: attention and MLP around a residual stream.

use burn::tensor::{Device, Tensor};

use super::attention::{Attention, GroupedAttention, LatentAttention};
use super::cache::LayerCache;
use super::linear::RmsNorm;
use super::mlp::Mlp;
use super::rotary::Rotary;
use crate::{AttentionConfig, Checkpoint, CoreError, ModelConfig};

/// A pre-norm decoder layer. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// `input_layernorm`.
    pub input_norm: RmsNorm,
    /// `self_attn`.
    pub attention: Attention,
    /// `post_attention_layernorm`.
    pub post_attention_norm: RmsNorm,
    /// `mlp`.
    pub mlp: Mlp,
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
        let attention_prefix = format!("{prefix}.self_attn");
        let norm = |name: &str| {
            let eps = config.rms_norm_eps;
            RmsNorm::read(checkpoint, &format!("{prefix}.{name}"), config.hidden_size, eps, device)
        };
        let attention = match &config.attention {
            AttentionConfig::Grouped(grouped) => Attention::Grouped(GroupedAttention::read(
                checkpoint,
                &attention_prefix,
                config,
                grouped,
                device,
            )?),
            AttentionConfig::Latent(latent) => Attention::Latent(LatentAttention::read(
                checkpoint,
                &attention_prefix,
                config,
                latent,
                device,
            )?),
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            attention,
            post_attention_norm: norm("post_attention_layernorm")?,
            mlp: Mlp::read(checkpoint, &format!("{prefix}.mlp"), config, device)?,
        })
    }

    /// What the attention of this layer sees: the normalised residual stream, `[batch·seq, hidden]`.
    pub fn attention_input(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.input_norm.forward(hidden.flatten(0, 1))
    }

    /// Residual stream `[batch, seq, hidden]` after this layer.
    pub fn forward(&self, hidden: Tensor<3>, rotary: &Rotary, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let input = self.attention_input(hidden.clone());
        self.forward_from_input(hidden, input, rotary, cache)
    }

    /// As [`Self::forward`], with [`Self::attention_input`] already at hand.
    pub fn forward_from_input(
        &self,
        hidden: Tensor<3>,
        input: Tensor<2>,
        rotary: &Rotary,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, sequence, width] = hidden.dims();
        let hidden = hidden.flatten(0, 1) + self.attention.forward(input, batch, rotary, cache);
        self.feed_forward(hidden).reshape([batch, sequence, width])
    }

    /// The second half of the layer: residual stream `[rows, hidden]` after attention to after the MLP.
    pub fn feed_forward(&self, hidden: Tensor<2>) -> Tensor<2> {
        let fed = self.mlp.forward(self.post_attention_norm.forward(hidden.clone()));
        hidden + fed
    }
}

/// `model.layers.{index}`.
pub fn layer_prefix(index: usize) -> String {
    format!("model.layers.{index}")
}
