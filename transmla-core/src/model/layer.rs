//! One decoder layer: attention and MLP around a residual stream.

use std::sync::Arc;

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

/// A decoder layer with norms before attention and MLP, behind both, or around them. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct DecoderLayer {
    /// `input_layernorm`, before attention; OLMo 2 has none.
    pub input_norm: Option<RmsNorm>,
    /// `self_attn`.
    pub attention: Attention,
    /// Behind attention: `post_attention_layernorm` of Gemma and OLMo 2.
    pub attention_output_norm: Option<RmsNorm>,
    /// Before the MLP: `post_attention_layernorm`, or Gemma's `pre_feedforward_layernorm`; OLMo 2 has none.
    pub feed_forward_norm: Option<RmsNorm>,
    /// One MLP, or experts.
    pub mlp: FeedForwardLayer,
    /// Behind the MLP: `post_feedforward_layernorm` of Gemma and OLMo 2.
    pub feed_forward_output_norm: Option<RmsNorm>,
}

impl DecoderLayer {
    /// Reads layer `index` onto a device, but for its experts, each of which is read when tokens go to it.
    ///
    /// # Errors
    /// A tensor is absent, has another shape than the configuration implies, or holds NaN.
    pub fn read(
        checkpoint: &Arc<Checkpoint>,
        config: &Arc<ModelConfig>,
        index: usize,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let prefix = layer_prefix(index);
        let norm = |name: &str| residual_norm(checkpoint, &format!("{prefix}.{name}"), config, device).map(Some);
        let attention = match &config.attention {
            AttentionConfig::Grouped(grouped) => {
                Attention::Grouped(GroupedAttention::read(checkpoint, index, config, grouped, device)?)
            }
            AttentionConfig::Latent(latent) => {
                Attention::Latent(LatentAttention::read(checkpoint, index, config, latent, device)?)
            }
        };
        let (middle, end) = ("post_attention_layernorm", "post_feedforward_layernorm");
        // In front of attention and behind it, in front of the MLP and behind it.
        let norms = match config.family.norm_placement {
            NormPlacement::Before => [norm("input_layernorm")?, None, norm(middle)?, None],
            NormPlacement::Around => [
                norm("input_layernorm")?,
                norm(middle)?,
                norm("pre_feedforward_layernorm")?,
                norm(end)?,
            ],
            NormPlacement::After => [None, norm(middle)?, None, norm(end)?],
        };
        let [
            input_norm,
            attention_output_norm,
            feed_forward_norm,
            feed_forward_output_norm,
        ] = norms;
        Ok(Self {
            input_norm,
            attention,
            attention_output_norm,
            feed_forward_norm,
            mlp: FeedForwardLayer::read(checkpoint, index, config, device)?,
            feed_forward_output_norm,
        })
    }

    /// The same with all its weights in memory, experts too.
    ///
    /// # Errors
    /// An expert cannot be read.
    pub fn whole(self) -> Result<Self, CoreError> {
        Ok(Self {
            mlp: self.mlp.whole()?,
            ..self
        })
    }

    /// What the attention of this layer sees, `[batch·seq, hidden]`: the residual stream, normalised if the model does that.
    pub fn attention_input(&self, hidden: Tensor<3>) -> Tensor<2> {
        through(self.input_norm.as_ref(), hidden.flatten(0, 1))
    }

    /// What the MLP of this layer sees of the residual stream behind attention, `[rows, hidden]`.
    pub(super) fn feed_forward_input(&self, hidden: Tensor<2>) -> Tensor<2> {
        through(self.feed_forward_norm.as_ref(), hidden)
    }

    /// Residual stream `[batch, seq, hidden]` after this layer.
    ///
    /// # Errors
    /// An expert cannot be read; [`CoreError::Execution`] if the device fails while experts are chosen.
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

    /// The first half of the layer: the residual stream `[batch, seq, hidden]` from in front of attention to after it.
    pub fn attend(&self, hidden: Tensor<3>, rotary: &Rotary, cache: Option<&mut LayerCache>) -> Tensor<3> {
        let input = self.attention_input(hidden.clone());
        let [batch, sequence, width] = hidden.dims();
        let attended = self.attention.forward(input, batch, rotary, cache);
        self.add_attention(hidden.flatten(0, 1), attended)
            .reshape([batch, sequence, width])
    }

    /// Takes texts, each `[batch, seq, hidden]`, through the layer: `attend` each, given its place, then what is behind. `step` is
    /// called as often as there are texts.
    ///
    /// Experts see all texts at once, and each of them is read once for all; the residual stream is held twice meanwhile.
    ///
    /// # Errors
    /// Those of `attend`; as [`Self::forward`].
    pub fn forward_each(
        &self,
        texts: &mut [Tensor<3>],
        attend: &mut dyn FnMut(usize, Tensor<3>) -> Result<Tensor<3>, CoreError>,
        step: &mut dyn FnMut(),
    ) -> Result<(), CoreError> {
        let mut attend = |index: usize, text: &mut Tensor<3>| {
            // The old state is released before the layer runs on it.
            let hidden = std::mem::replace(text, Tensor::empty([1, 1, 1], &text.device()));
            *text = attend(index, hidden)?;
            Ok::<_, CoreError>(())
        };
        if let FeedForwardLayer::Dense(_) = self.mlp {
            for (index, text) in texts.iter_mut().enumerate() {
                attend(index, text)?;
                self.feed_forward_each(&mut [text], step)?;
            }
            return Ok(());
        }
        for (index, text) in texts.iter_mut().enumerate() {
            attend(index, text)?;
        }
        self.feed_forward_each(&mut texts.iter_mut().collect::<Vec<_>>(), step)
    }

    /// [`Self::feed_forward`] of several texts, each `[batch, seq, hidden]`; each expert is read once for all. `step` is called as
    /// often as there are texts.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn feed_forward_each(&self, texts: &mut [&mut Tensor<3>], step: &mut dyn FnMut()) -> Result<(), CoreError> {
        let FeedForwardLayer::Experts(experts) = &self.mlp else {
            for text in texts {
                let shape = text.dims();
                let hidden = std::mem::replace(*text, Tensor::empty([1, 1, 1], &text.device()));
                **text = self.feed_forward(hidden.flatten(0, 1))?.reshape(shape);
                step();
            }
            return Ok(());
        };
        let states: Vec<Tensor<2>> = texts.iter().map(|text| (*text).clone().flatten(0, 1)).collect();
        let (count, mut stepped) = (texts.len(), 0);
        let mut done = |experts_done: usize| {
            while stepped * experts.count < experts_done * count {
                step();
                stepped += 1;
            }
        };
        let fed = experts.forward_each(&states, &|rows| self.feed_forward_input(rows), &mut done)?;
        for ((text, state), fed) in texts.iter_mut().zip(states).zip(fed) {
            let shape = text.dims();
            **text = (state + through(self.feed_forward_output_norm.as_ref(), fed)).reshape(shape);
        }
        Ok(())
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
        let fed = self.mlp.forward(self.feed_forward_input(hidden.clone()))?;
        Ok(hidden + through(self.feed_forward_output_norm.as_ref(), fed))
    }
}

fn through(norm: Option<&RmsNorm>, x: Tensor<2>) -> Tensor<2> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
