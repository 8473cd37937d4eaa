//! A whole model, read from a checkpoint layer by layer or held in memory.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::layout::check_headers;
use transmla_checkpoint::{Checkpoint, ModelConfig, TokenBatch};

use super::cache::KvCache;
use super::layer::DecoderLayer;
use super::layered::LayeredModel;
use super::output_head::OutputHead;
use super::rotary::LayerRotary;
use crate::error::CoreError;
use crate::kernels::{CacheFormat, among_threads};

/// Whether a model's weights are kept or read again for every use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// Each layer is read when it is needed and dropped afterwards, and within it each expert.
    Streamed,
    /// All weights stay on the device.
    Loaded,
}

/// A decoder over a checkpoint folder. Cloning shares weights and open files.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: Arc<ModelConfig>,
    checkpoint: Arc<Checkpoint>,
    device: Device,
    layers: Option<Arc<Vec<DecoderLayer>>>,
    head: Option<OutputHead>,
    /// Whether latents are in the basis that loses least when they are quantised.
    for_quantised: bool,
}

impl Decoder {
    /// Opens a model folder and checks every tensor's shape against the configuration.
    ///
    /// # Errors
    /// The folder is incomplete or damaged, or the model has a feature that is not supported.
    pub fn open(folder: &Path, device: &Device, residency: Residency) -> Result<Self, CoreError> {
        let config = ModelConfig::read(folder)?;
        Self::new(config, Checkpoint::open(folder)?, device, residency)
    }

    /// A decoder of an opened checkpoint.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn new(
        config: ModelConfig,
        checkpoint: Checkpoint,
        device: &Device,
        residency: Residency,
    ) -> Result<Self, CoreError> {
        check_headers(&config, &checkpoint)?;
        let mut decoder = Self {
            config: Arc::new(config),
            checkpoint: Arc::new(checkpoint),
            device: device.clone(),
            layers: None,
            head: None,
            for_quantised: false,
        };
        if residency == Residency::Loaded {
            let layers = (0..decoder.config.num_hidden_layers).map(|index| decoder.layer(index)?.whole());
            decoder.layers = Some(Arc::new(layers.collect::<Result<_, _>>()?));
            decoder.head = Some(decoder.head()?);
        }
        Ok(decoder)
    }

    /// The same model, streamed onto another device, for example `device.autodiff()` to take gradients.
    pub fn on_device(&self, device: &Device) -> Self {
        Self {
            device: device.clone(),
            layers: None,
            head: None,
            ..self.clone()
        }
    }

    /// The same model as it loses least with a cache of this format: if that is quantised, its latents are turned into another basis,
    /// which changes nothing but what a quantised cache rounds. The cache must be filled and read by the same model.
    ///
    /// # Errors
    /// [`CoreError::CacheFormat`] for a quantised cache of a model without latents; a device that fails.
    pub fn for_cache(&self, format: CacheFormat) -> Result<Self, CoreError> {
        format.check(&self.config)?;
        if self.for_quantised || !format.is_quantised() {
            return Ok(self.clone());
        }
        let layers = self.layers.as_ref().map(|layers| {
            let layers = layers.iter().cloned().map(DecoderLayer::for_quantised_cache);
            layers.collect::<Result<Vec<_>, _>>()
        });
        Ok(Self {
            layers: layers.transpose()?.map(Arc::new),
            for_quantised: true,
            ..self.clone()
        })
    }

    /// Whether the weights are kept.
    pub fn residency(&self) -> Residency {
        match self.layers {
            Some(_) => Residency::Loaded,
            None => Residency::Streamed,
        }
    }

    /// The checkpoint behind the model.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Logits `[batch, seq, vocabulary]` of new tokens; with a cache they follow the tokens already in it.
    ///
    /// # Errors
    /// A token outside the vocabulary; a layer that cannot be read; a cache of another model or batch.
    pub fn logits(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Result<Tensor<3>, CoreError> {
        among_threads(&self.device, || {
            let hidden = self.hidden(tokens, cache)?;
            let [batch, sequence, _] = hidden.dims();
            let logits = self.head()?.logits(hidden.flatten(0, 1));
            Ok(logits.reshape([batch, sequence, self.config.vocab_size]))
        })
    }

    /// Logits `[batch, vocabulary]` that follow the last of the new tokens.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn next_logits(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Result<Tensor<2>, CoreError> {
        among_threads(&self.device, || {
            let hidden = self.hidden(tokens, cache)?;
            let last = hidden.dims()[1] - 1;
            Ok(self.head()?.logits(hidden.narrow(1, last, 1).flatten(0, 1)))
        })
    }

    /// If a layer cannot be read, the cache is left as it was.
    fn hidden(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Result<Tensor<3>, CoreError> {
        let Some(cache) = cache else {
            return self.through_layers(tokens, &vec![0; tokens.batch()], None);
        };
        cache.prepare(&self.config, tokens.batch())?;
        let starts = cache.lengths().to_vec();
        self.check_length(starts.iter().max().unwrap_or(&0) + tokens.sequence())?;
        let hidden = self.through_layers(tokens, &starts, Some(cache));
        match &hidden {
            Ok(_) => cache.advance(tokens.sequence()),
            Err(_) => cache.undo(),
        }
        hidden
    }

    /// Whether the model's positions hold for a sequence of this length.
    fn check_length(&self, tokens: usize) -> Result<(), CoreError> {
        match self.config.rope_limit {
            Some(limit) if tokens > limit => Err(CoreError::BeyondContext { tokens, limit }),
            _ => Ok(()),
        }
    }

    fn through_layers(
        &self,
        tokens: &TokenBatch,
        starts: &[usize],
        mut cache: Option<&mut KvCache>,
    ) -> Result<Tensor<3>, CoreError> {
        let rotary = LayerRotary::of_each(&self.config.rope, starts, tokens.sequence(), &self.device);
        let mut hidden = self.embed(tokens)?;
        for index in 0..self.config.num_hidden_layers {
            let layer = self.layer(index)?;
            hidden = layer.forward(
                hidden,
                rotary.of(index),
                cache.as_mut().and_then(|cache| cache.layer(index)),
            )?;
            if let Some(cache) = &mut cache {
                cache.layer_ends(index);
            }
        }
        Ok(hidden)
    }
}

impl LayeredModel for Decoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError> {
        let (vocab_size, hidden) = (self.config.vocab_size, self.config.hidden_size);
        tokens.check_vocabulary(vocab_size)?;
        self.check_length(tokens.sequence())?;
        let mut rows = Vec::with_capacity(tokens.tokens() * hidden);
        let ids = tokens.ids().iter().map(|id| *id as usize);
        self.checkpoint
            .rows("model.embed_tokens.weight", [vocab_size, hidden], ids, &mut rows)?;
        let shape = [tokens.batch(), tokens.sequence(), hidden];
        if self.config.embedding_scale != 1.0 {
            let scale = self.config.embedding_scale as f32;
            rows.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(Tensor::from_data(TensorData::new(rows, shape), &self.device))
    }

    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        let layers = self.config.num_hidden_layers;
        if index >= layers {
            return Err(CoreError::NoSuchLayer { index, layers });
        }
        match self.layers.as_ref().and_then(|layers| layers.get(index)) {
            Some(layer) => Ok(layer.clone()),
            None => {
                let layer = DecoderLayer::read(&self.checkpoint, &self.config, index, &self.device)?;
                match self.for_quantised {
                    true => layer.for_quantised_cache(),
                    false => Ok(layer),
                }
            }
        }
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        match &self.head {
            Some(head) => Ok(head.clone()),
            None => OutputHead::read(&self.checkpoint, &self.config, &self.device),
        }
    }
}
