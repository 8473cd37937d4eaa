//! The model in training: what it was read with, and the weights as they are now.

use burn::tensor::{Device, Tensor};
use transmla_core::model::{OutputHead, Projections};
use transmla_core::{CoreError, Decoder, DecoderLayer, LayeredModel, ModelConfig, TokenBatch};

use crate::heal::weights::{Weights, of_layer, projections};
use crate::spec::healing::Healing;

/// A converted model whose projections are trained.
pub(crate) struct Student<'a> {
    base: &'a Decoder,
    head: OutputHead,
    which: Projections,
    /// By layer, in the order of its projections.
    pub weights: Vec<Vec<Weights>>,
}

impl<'a> Student<'a> {
    /// A model before its first step.
    ///
    /// # Errors
    /// A layer cannot be read.
    pub fn new(base: &'a Decoder, healing: &Healing) -> Result<Self, CoreError> {
        let layers = 0..base.config().num_hidden_layers;
        let weights = layers.map(|index| of_layer(&base.layer(index)?, index, healing));
        Ok(Self {
            head: base.head()?,
            which: projections(healing),
            weights: weights.collect::<Result<_, CoreError>>()?,
            base,
        })
    }

    /// Which projections are trained.
    pub fn which(&self) -> Projections {
        self.which
    }

    /// All weights as they are now, by layer.
    pub fn values(&self) -> Vec<Vec<Tensor<2>>> {
        let of_layer = |layer: &Vec<Weights>| layer.iter().map(|weights| weights.value.clone()).collect();
        self.weights.iter().map(of_layer).collect()
    }

    /// A layer as it was read, with other weights.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn layer_with(&self, index: usize, values: &[Tensor<2>]) -> Result<DecoderLayer, CoreError> {
        let mut values = values.iter();
        let layer = self.base.layer(index)?;
        layer.map_projections(self.which, &mut |_, read| values.next().cloned().unwrap_or(read))
    }
}

impl LayeredModel for Student<'_> {
    fn config(&self) -> &ModelConfig {
        self.base.config()
    }

    fn device(&self) -> &Device {
        self.base.device()
    }

    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError> {
        self.base.embed(tokens)
    }

    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        let values: Vec<Tensor<2>> = match self.weights.get(index) {
            Some(layer) => layer.iter().map(|weights| weights.value.clone()).collect(),
            // The base says what is wrong.
            None => Vec::new(),
        };
        self.layer_with(index, &values)
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        Ok(self.head.clone())
    }
}
