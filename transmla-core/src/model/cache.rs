//! KV caches.

use burn::tensor::{Device, Distribution, Tensor};
use transmla_checkpoint::{AttentionConfig, ModelConfig, StorageDtype};

use super::cached_rows::CachedRows;
use crate::error::CoreError;
use crate::kernels::{CacheFormat, QuantisedRow};

/// The cache of one layer.
#[derive(Debug, Clone)]
pub enum LayerCache {
    /// Rotated keys and values of every key head: `2 · G · d` numbers per token.
    Grouped {
        /// Rotated keys, `[batch, G, tokens, d]`.
        keys: CachedRows,
        /// Values, `[batch, G, tokens, d]`.
        values: CachedRows,
    },
    /// The normalised latent followed by the shared rotated key: `r + d_r` numbers per token and group of heads, never expanded. Behind
    /// them are the scales of G key heads' norms, if the model keeps those.
    Latent {
        /// `[batch, groups, tokens, r + d_r (+ G)]`, mostly of one group.
        rows: CachedRows,
    },
}

impl LayerCache {
    /// An empty cache of one layer with room for `capacity` tokens per sequence.
    pub fn new(config: &ModelConfig, capacity: usize, dtype: StorageDtype) -> Self {
        match &config.attention {
            AttentionConfig::Grouped(grouped) => {
                let rows = CachedRows::new(grouped.num_key_value_heads, grouped.head_dim, capacity, dtype);
                Self::Grouped {
                    keys: rows.clone(),
                    values: rows,
                }
            }
            AttentionConfig::Latent(latent) => Self::Latent {
                rows: CachedRows::new(latent.latent_groups, latent.group_numbers(), capacity, dtype),
            },
        }
    }

    /// The same in any format.
    ///
    /// # Errors
    /// [`CoreError::CacheFormat`] for a quantised cache of a model without latents.
    pub fn in_format(config: &ModelConfig, capacity: usize, format: CacheFormat) -> Result<Self, CoreError> {
        match (format, &config.attention) {
            (CacheFormat::Plain(dtype), _) => Ok(Self::new(config, capacity, dtype)),
            (CacheFormat::Quantised(_), AttentionConfig::Grouped(_)) => Err(format.refused()),
            (CacheFormat::Quantised(quantisation), AttentionConfig::Latent(latent)) => {
                let exact = latent.group_numbers() - latent.kv_lora_rank;
                let row = QuantisedRow::new(quantisation, latent.kv_lora_rank, exact);
                Ok(Self::Latent {
                    rows: CachedRows::quantised(latent.latent_groups, row, capacity),
                })
            }
        }
    }

    /// Copies of sequences by index, in the given order; a sequence may be there several times, or not at all. Texts that begin
    /// alike go on from copies of what they share.
    ///
    /// # Panics
    /// If there is no such sequence.
    #[must_use]
    pub fn copies_of(&self, sequences: &[usize]) -> Self {
        match self {
            Self::Grouped { keys, values } => Self::Grouped {
                keys: keys.copies_of(sequences),
                values: values.copies_of(sequences),
            },
            Self::Latent { rows } => Self::Latent {
                rows: rows.copies_of(sequences),
            },
        }
    }

    fn rows(&self) -> (&CachedRows, Option<&CachedRows>) {
        match self {
            Self::Grouped { keys, values } => (keys, Some(values)),
            Self::Latent { rows } => (rows, None),
        }
    }

    fn sum(&self, of: impl Fn(&CachedRows) -> usize) -> usize {
        let (one, other) = self.rows();
        of(one) + other.map_or(0, of)
    }

    /// The same for a layer whose tokens see no more than a window, before the first token.
    fn within(self, window: Option<usize>) -> Self {
        match self {
            Self::Grouped { keys, values } => Self::Grouped {
                keys: keys.within(window),
                values: values.within(window),
            },
            Self::Latent { rows } => Self::Latent {
                rows: rows.within(window),
            },
        }
    }

    /// Forgets what no later token sees.
    fn forget(&mut self) {
        match self {
            Self::Grouped { keys, values } => {
                keys.forget();
                values.forget();
            }
            Self::Latent { rows } => rows.forget(),
        }
    }

    /// Cuts each sequence to a number of tokens, if it has more: what follows the end of a padded sequence is forgotten.
    pub fn truncate(&mut self, lengths: &[usize]) {
        match self {
            Self::Grouped { keys, values } => {
                keys.truncate(lengths);
                values.truncate(lengths);
            }
            Self::Latent { rows } => rows.truncate(lengths),
        }
    }

    fn join(caches: Vec<Self>) -> Option<Self> {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let count = caches.len();
        for cache in caches {
            match cache {
                Self::Grouped { keys, values } => {
                    one.push(keys);
                    other.push(values);
                }
                Self::Latent { rows } => one.push(rows),
            }
        }
        match other.len() {
            0 => Some(Self::Latent {
                rows: CachedRows::join(one)?,
            }),
            grouped if grouped == count => Some(Self::Grouped {
                keys: CachedRows::join(one)?,
                values: CachedRows::join(other)?,
            }),
            _ => None,
        }
    }
}

/// The caches of all layers of a model, for a batch of sequences that may have different lengths.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    format: CacheFormat,
    /// Tokens of each sequence that every layer has seen; empty before the first.
    lengths: Vec<usize>,
}

impl KvCache {
    /// An empty cache in `f32` with room for `capacity` tokens per sequence; it is allocated when the first tokens come.
    pub fn new(config: &ModelConfig, capacity: usize) -> Self {
        Self::with_dtype(config, capacity, StorageDtype::F32)
    }

    /// The same in any storage format. Attention computes in `f32`.
    pub fn with_dtype(config: &ModelConfig, capacity: usize, dtype: StorageDtype) -> Self {
        Self {
            layers: (0..config.num_hidden_layers)
                .map(|layer| LayerCache::new(config, capacity, dtype).within(config.attention_parameters(layer).window))
                .collect(),
            format: dtype.into(),
            lengths: Vec::new(),
        }
    }

    /// The same in any format, the quantised ones included: with those, tokens attend to the rows as they are kept, their own included,
    /// however a text is cut into calls. [`Decoder::for_cache`](super::Decoder::for_cache) gives the model that loses least by it.
    ///
    /// # Errors
    /// [`CoreError::CacheFormat`] for a quantised cache of a model that has keys and values of its heads instead of latents.
    pub fn in_format(config: &ModelConfig, capacity: usize, format: CacheFormat) -> Result<Self, CoreError> {
        let layers = (0..config.num_hidden_layers).map(|layer| {
            let window = config.attention_parameters(layer).window;
            Ok(LayerCache::in_format(config, capacity, format)?.within(window))
        });
        Ok(Self {
            layers: layers.collect::<Result<_, CoreError>>()?,
            format,
            lengths: Vec::new(),
        })
    }

    /// Adds random keys and values of `tokens` tokens to each of `batch` sequences, to measure decoding: its time does not depend
    /// on the numbers.
    ///
    /// # Errors
    /// [`CoreError::Cache`] if it holds another number of sequences already.
    pub fn fill_at_random(&mut self, batch: usize, tokens: usize, device: &Device) -> Result<(), CoreError> {
        self.expect_batch(batch)?;
        let mut numbers: Option<Tensor<4>> = None;
        for layer in &mut self.layers {
            let (one, other) = match layer {
                LayerCache::Grouped { keys, values } => (keys, Some(values)),
                LayerCache::Latent { rows } => (rows, None),
            };
            for rows in std::iter::once(one).chain(other) {
                let shape = rows.shape_of(batch, tokens);
                let numbers =
                    numbers.get_or_insert_with(|| Tensor::random(shape, Distribution::Normal(0.0, 1.0), device));
                rows.append(numbers.clone());
            }
            layer.forget();
        }
        self.advance(tokens);
        Ok(())
    }

    /// The sequences of several caches of one model as a single batch, in their order. Nothing is copied on the CPU.
    ///
    /// Prompts of different lengths are read one by one and decoded together.
    ///
    /// # Errors
    /// [`CoreError::Cache`] if there is none, one is empty, or they are not of one model, format and device.
    pub fn join(caches: Vec<Self>) -> Result<Self, CoreError> {
        let problem = |problem: &str| CoreError::Cache {
            problem: problem.to_owned(),
        };
        let mut caches = caches;
        let Some(first) = caches.first() else {
            return Err(problem("there are no caches to join"));
        };
        let (layers, format) = (first.layers.len(), first.format);
        if caches.iter().any(|cache| cache.lengths.is_empty()) {
            return Err(problem("an empty cache cannot be joined with others"));
        }
        let other = "caches of different models, formats or devices cannot be joined";
        if caches.iter().any(|cache| cache.layers.len() != layers) {
            return Err(problem(other));
        }
        let lengths = caches.iter().flat_map(|cache| cache.lengths.clone()).collect();
        let mut columns: Vec<_> = caches.iter_mut().map(|cache| cache.layers.drain(..)).collect();
        let mut joined = Vec::with_capacity(layers);
        for _ in 0..layers {
            let layer = columns.iter_mut().filter_map(Iterator::next).collect();
            joined.push(LayerCache::join(layer).ok_or_else(|| problem(other))?);
        }
        drop(columns);
        Ok(Self {
            layers: joined,
            format,
            lengths,
        })
    }

    /// The format it is kept in: `f32` where the device does not support the requested one.
    pub fn format(&self) -> CacheFormat {
        let first = self.layers.first();
        first.map_or(self.format, |layer| layer.rows().0.format())
    }

    /// Bytes of one token in all layers, scales included.
    pub fn bytes_per_token(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| layer.sum(CachedRows::bytes_per_token))
            .sum()
    }

    /// Tokens of the longest sequence that every layer has seen.
    pub fn tokens(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Tokens of each sequence that every layer has seen; empty before the first.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Bytes that the tokens of all sequences take: in layers with a window those that a later token may see, and a quarter of
    /// a window more at most.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.sum(CachedRows::bytes)).sum()
    }

    /// Bytes that are set aside for the tokens of all sequences, seen or not.
    pub fn allocated_bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| layer.sum(CachedRows::allocated_bytes))
            .sum()
    }

    /// Removes all but the first `tokens` of each sequence, or all of a sequence where those have left the window of a layer,
    /// so that nothing can follow them; [`Self::lengths`] says what is left.
    pub fn truncate(&mut self, tokens: usize) {
        let layers = &self.layers;
        let goes_on = |sequence| {
            layers
                .iter()
                .all(|layer| layer.rows().0.goes_on_behind(sequence, tokens))
        };
        for (sequence, length) in self.lengths.iter_mut().enumerate() {
            if tokens < *length {
                *length = if goes_on(sequence) { tokens } else { 0 };
            }
        }
        self.undo();
    }

    /// Removes all tokens of one sequence; the others keep theirs. Nothing happens if there is no such sequence.
    pub fn restart(&mut self, sequence: usize) {
        if let Some(length) = self.lengths.get_mut(sequence) {
            *length = 0;
            self.undo();
        }
    }

    /// The cache of one layer; `None` if the model has no such layer.
    pub fn layer(&mut self, index: usize) -> Option<&mut LayerCache> {
        self.layers.get_mut(index)
    }

    /// Checks that new tokens of some sequences of a model can follow, and makes them the first if there were none.
    pub(super) fn prepare(&mut self, config: &ModelConfig, batch: usize) -> Result<(), CoreError> {
        let numbers = config.attention.cache_numbers();
        let (heads, latent) = match &config.attention {
            AttentionConfig::Grouped(grouped) => (grouped.num_key_value_heads, false),
            AttentionConfig::Latent(latent) => (latent.latent_groups, true),
        };
        let fits = |layer: &LayerCache| {
            layer.sum(CachedRows::numbers_per_token) == numbers
                && layer.rows().0.heads() == heads
                && matches!(layer, LayerCache::Latent { .. }) == latent
        };
        if self.layers.len() != config.num_hidden_layers || !self.layers.iter().all(fits) {
            return Err(CoreError::Cache {
                problem: format!(
                    "it is of another model than this one with {} layers of {numbers} numbers per token",
                    config.num_hidden_layers
                ),
            });
        }
        self.expect_batch(batch)
    }

    fn expect_batch(&mut self, batch: usize) -> Result<(), CoreError> {
        if self.lengths.is_empty() {
            self.lengths = vec![0; batch];
        }
        match self.lengths.len() == batch {
            true => Ok(()),
            false => Err(CoreError::Cache {
                problem: format!(
                    "it holds {} sequences, the new tokens are of {batch}",
                    self.lengths.len()
                ),
            }),
        }
    }

    /// Every layer has seen as many more tokens of each sequence. What has left a layer's window is forgotten only now, so that
    /// until now everything could be undone.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.lengths.iter_mut().for_each(|length| *length += tokens);
        self.layers.iter_mut().for_each(LayerCache::forget);
    }

    /// A layer has seen the new tokens of all sequences. Where those are the first, nothing older would be wanted back: the layer
    /// keeps no more of a long text than its window while the next layers read it.
    pub(super) fn layer_ends(&mut self, index: usize) {
        if self.tokens() == 0
            && let Some(layer) = self.layers.get_mut(index)
        {
            layer.forget();
        }
    }

    /// Forgets what some layers have seen and others have not.
    pub(super) fn undo(&mut self) {
        for layer in &mut self.layers {
            layer.truncate(&self.lengths);
        }
    }
}
