//! The model between the two steps: positions in one shared key, everything still at full rank.

use burn::tensor::{Device, Tensor};
use transmla_core::model::OutputHead;
use transmla_core::model::attention::{Attention, DecoupledAttention};
use transmla_core::{CoreError, Decoder, DecoderLayer, LayeredModel, ModelConfig, TokenBatch};
use transmla_rope::{Decoupling, KeyRotation};

use crate::weights::{HostWeights, to_linear};
use crate::{ConvertError, Plan};

/// The source with RoPE decoupled in every layer. Layers are made when they are asked for.
#[derive(Debug)]
pub struct DecoupledModel<'a> {
    source: &'a Decoder,
    plan: &'a Plan,
    rotations: &'a [KeyRotation],
    config: ModelConfig,
}

impl<'a> DecoupledModel<'a> {
    /// A model from one rotation per layer.
    pub fn new(source: &'a Decoder, plan: &'a Plan, rotations: &'a [KeyRotation]) -> Self {
        let mut config = plan.source.clone();
        config.rope.dim = plan.latent.qk_rope_head_dim;
        Self {
            source,
            plan,
            rotations,
            config,
        }
    }

    /// The split of one layer's keys.
    pub fn decoupling(&self, layer: usize) -> Decoupling {
        self.rotations[layer].decoupling()
    }

    /// The model that this was made from.
    pub fn source(&self) -> &'a Decoder {
        self.source
    }

    fn decouple(&self, base: DecoderLayer, layer: usize) -> Result<DecoderLayer, ConvertError> {
        let Attention::Grouped(grouped) = base.attention else {
            return Err(ConvertError::AlreadyLatent {
                model_type: self.config.model_type.clone(),
            });
        };
        let rope = ConvertError::rope(layer);
        let weights = HostWeights::read(self.source, self.plan, layer)?;
        let decoupling = self.decoupling(layer);
        let keys = decoupling.split_keys(weights.k.as_ref()).map_err(&rope)?;
        let nope = decoupling.expand_nope_grouped(keys.nope.as_ref()).map_err(&rope)?;
        let mut queries = decoupling.rope_queries(weights.q.as_ref()).map_err(&rope)?;
        // The attention divides by sqrt(d + d_r), the original by sqrt(d).
        let scale = self.plan.query_scale();
        queries *= faer::Scale(scale);
        let hidden = self.config.hidden_size;
        let linear = |matrix: &faer::Mat<f64>| to_linear(matrix.as_ref(), hidden, self.device());
        let mut q_nope = grouped.q;
        q_nope.weight = q_nope.weight.mul_scalar(scale);
        q_nope.bias = q_nope.bias.map(|bias| bias.mul_scalar(scale));
        let attention = DecoupledAttention {
            q_nope,
            q_rope: linear(&queries),
            k_nope: linear(&nope),
            k_rope: linear(&keys.rope),
            v: grouped.v,
            o: grouped.o,
            query_heads: grouped.query_heads,
            nope_heads: grouped.key_heads,
            value_heads: grouped.key_heads,
        };
        Ok(DecoderLayer {
            attention: Attention::Decoupled(attention),
            ..base
        })
    }
}

impl LayeredModel for DecoupledModel<'_> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        self.source.device()
    }

    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError> {
        self.source.embed(tokens)
    }

    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        self.decouple(self.source.layer(index)?, index)
            .map_err(|error| match error {
                ConvertError::Core(error) => error,
                other => CoreError::Execution(other.to_string()),
            })
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        self.source.head()
    }
}
