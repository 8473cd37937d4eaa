//! The configuration of a model, as the decoder needs it.

use super::attention::AttentionConfig;
use super::attention_parameters::AttentionParameters;
use super::experts::ExpertConfig;
use super::family::Family;
use super::features::{Activation, SlidingWindow};
use super::grouped::GroupedConfig;
use super::latent::LatentConfig;
use super::layer_ropes::LayerRopes;
use super::mtp::MtpConfig;
use super::raw::RawConfig;

/// The configuration of a model of any family, as the decoder needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type` of config.json.
    pub model_type: String,
    /// The row of the family table; for a converted model that of its source.
    pub family: &'static Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of decoder layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence that the model was trained for, in tokens.
    pub max_position_embeddings: usize,
    /// Epsilon of every RMSNorm of the residual stream.
    pub rms_norm_eps: f64,
    /// Whether the output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Nonlinearity of the MLP.
    pub activation: Activation,
    /// Factor of the token embeddings.
    pub embedding_scale: f64,
    /// Factor of the attention scores.
    pub score_scale: f64,
    /// Factor of what attention and MLP add to the residual stream. The decoder's `o_proj` and `down_proj` include it.
    pub residual_multiplier: f64,
    /// What logits are divided by, before a soft-cap.
    pub logit_divisor: f64,
    /// Soft-cap c of the attention scores: `c · tanh(score / c)`.
    pub score_softcap: Option<f64>,
    /// Soft-cap of the logits.
    pub logit_softcap: Option<f64>,
    /// Sliding-window attention.
    pub window: Option<SlidingWindow>,
    /// The mixture of experts in place of MLPs, if there is one; [`Self::experts_of`] says in which layers.
    pub experts: Option<ExpertConfig>,
    /// Multi-token-prediction (MTP) layers.
    pub mtp: Option<MtpConfig>,
    /// Positions, by layer.
    pub rope: LayerRopes,
    /// Longest sequence for which [`Self::rope`] holds, in tokens, if it is limited: dynamic RoPE scaling changes the
    /// frequencies of longer sequences.
    pub rope_limit: Option<usize>,
    /// Grouped-query or latent attention.
    pub attention: AttentionConfig,
    /// Ids that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Id that starts a text, if the model uses one.
    pub bos_token_id: Option<u32>,
    /// config.json as it stands.
    pub raw: RawConfig,
    /// Where the weights' headers overrode config.json, in words.
    pub notes: Vec<String>,
}

impl ModelConfig {
    /// How the scores of one layer become probabilities.
    pub fn attention_parameters(&self, layer: usize) -> AttentionParameters {
        let window = self.window.as_ref().filter(|window| window.covers(layer));
        AttentionParameters {
            scale: self.score_scale,
            softcap: self.score_softcap,
            window: window.map(|window| window.size),
        }
    }

    /// Rows of the projection to the queries of all heads of a latent attention: without the rotary part where they are
    /// normalised, for that is made behind the norm.
    pub fn query_rows(&self, latent: &LatentConfig) -> usize {
        let width = match self.family.qk_norm.is_there() {
            true => latent.qk_nope_head_dim,
            false => latent.query_width(),
        };
        self.num_attention_heads * width
    }

    /// The experts of one layer, or nothing if it has one MLP.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertConfig> {
        self.experts
            .as_ref()
            .filter(|experts| !experts.dense_layers.contains(&layer))
    }

    /// The grouped-query shapes, or nothing if the model already has latent attention.
    pub fn grouped(&self) -> Option<&GroupedConfig> {
        match &self.attention {
            AttentionConfig::Grouped(grouped) => Some(grouped),
            AttentionConfig::Latent(_) => None,
        }
    }
}
