//! The model between the two steps: positions in one shared key, everything still at full rank.

use burn::tensor::{Device, Tensor};
use transmla_core::model::OutputHead;
use transmla_core::model::attention::{Attention, DecoupledAttention, DecoupledQueries};
use transmla_core::{CoreError, Decoder, DecoderLayer, LayeredModel, ModelConfig, TokenBatch};
use transmla_rope::{Decoupling, KeyRotation};

use crate::layer::assemble::normed_queries;
use crate::layer::key_norm::LinearKeys;
use crate::layer::weights::{HostWeights, to_linear};
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// The source with RoPE decoupled in every layer. Layers are made when they are asked for.
#[derive(Debug)]
pub struct DecoupledModel<'a> {
    source: &'a Decoder,
    plan: &'a Plan,
    rotations: &'a [KeyRotation],
    keys: &'a [LinearKeys],
    config: ModelConfig,
}

impl<'a> DecoupledModel<'a> {
    /// A model from one rotation per layer.
    pub fn new(source: &'a Decoder, plan: &'a Plan, rotations: &'a [KeyRotation]) -> Self {
        let mut config = plan.source().clone();
        config.rope = plan.converted().rope.clone();
        Self {
            source,
            plan,
            rotations,
            keys: &[],
            config,
        }
    }

    /// The same with keys that stand for normalised ones in every layer, for models that normalise theirs.
    pub fn with_keys(self, keys: &'a [LinearKeys]) -> Self {
        Self { keys, ..self }
    }

    /// What stands for the normalised keys of one layer, if it has them.
    pub fn keys(&self, layer: usize) -> Option<&'a LinearKeys> {
        self.keys.get(layer)
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
        let weights = HostWeights::read(self.source, self.plan, layer, self.keys(layer))?;
        let decoupling = self.decoupling(layer);
        let keys = decoupling.split_keys(weights.k.as_ref()).map_err(&rope)?;
        let nope = decoupling.expand_nope_grouped(keys.nope.as_ref()).map_err(&rope)?;
        let hidden = self.config.hidden_size;
        let linear = |matrix: &faer::Mat<f64>| to_linear(matrix.as_ref(), hidden, self.device());
        let share = self.plan.rope_share(layer);
        let q = match &grouped.q_norm {
            None => {
                let mut queries = decoupling.rope_queries(weights.q.as_ref()).map_err(&rope)?;
                queries *= faer::Scale(share);
                DecoupledQueries::Linear {
                    nope: grouped.q,
                    rope: linear(&queries),
                }
            }
            Some(norm) => DecoupledQueries::Normed {
                raw: grouped.q,
                heads: normed_queries(norm, &decoupling, [1.0, share], self.device()),
            },
        };
        let key_scale = match (self.keys(layer), &grouped.k_norm) {
            (Some(keys), Some(norm)) => keys.scale(&grouped.k, norm, self.device()),
            _ => None,
        };
        let mut parameters = self.plan.source().attention_parameters(layer);
        parameters.scale = self.plan.source_scale(layer);
        let attention = DecoupledAttention {
            q,
            k_nope: linear(&nope),
            k_rope: linear(&keys.rope),
            key_scale,
            v: grouped.v,
            o: grouped.o,
            query_heads: grouped.query_heads,
            nope_heads: grouped.key_heads,
            value_heads: grouped.key_heads,
            parameters,
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
                other => CoreError::Made {
                    source: Box::new(other),
                },
            })
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        self.source.head()
    }
}
