//! KV caches: what a decoder keeps of the tokens it has seen.

use burn::tensor::Tensor;

use crate::{AttentionConfig, ModelConfig};

/// Rows kept per token in one preallocated tensor `[batch, heads, capacity, width]`.
#[derive(Debug, Clone)]
pub struct CachedRows {
    heads: usize,
    width: usize,
    capacity: usize,
    filled: usize,
    /// Taken out while it is written to, so that the backend may write in place.
    rows: Option<Box<Tensor<4>>>,
}

impl CachedRows {
    fn new(heads: usize, width: usize, capacity: usize) -> Self {
        Self {
            heads,
            width,
            capacity: capacity.max(1),
            filled: 0,
            rows: None,
        }
    }

    /// Appends `[batch, heads, new, width]` and returns everything kept so far, `[batch, heads, filled, width]`.
    ///
    /// The room doubles when it runs out.
    pub fn append(&mut self, new: Tensor<4>) -> Tensor<4> {
        let [batch, heads, count, width] = new.dims();
        let end = self.filled + count;
        let room = |tokens| Tensor::zeros([batch, heads, tokens, width], &new.device());
        let rows = match self.rows.take().map(|rows| *rows) {
            None => {
                self.capacity = self.capacity.max(end);
                room(self.capacity)
            }
            Some(rows) if end > self.capacity => {
                self.capacity = end.max(2 * self.capacity);
                Tensor::cat(
                    vec![rows.narrow(2, 0, self.filled), room(self.capacity - self.filled)],
                    2,
                )
            }
            Some(rows) => rows,
        };
        let rows = rows.slice_assign([0..batch, 0..heads, self.filled..end, 0..width], new);
        self.filled = end;
        let kept = rows.clone().narrow(2, 0, end);
        self.rows = Some(Box::new(rows));
        kept
    }

    fn numbers_per_token(&self) -> usize {
        self.heads * self.width
    }
}

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
    /// The normalised latent followed by the shared rotated key: `r + d_r` numbers per token, never expanded.
    Latent(
        /// `[batch, 1, tokens, r + d_r]`.
        CachedRows,
    ),
}

/// The caches of all layers of a model.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    tokens: usize,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens per sequence; it is allocated when the first tokens come.
    pub fn new(config: &ModelConfig, capacity: usize) -> Self {
        let layer = || match &config.attention {
            AttentionConfig::Grouped(grouped) => {
                let rows = CachedRows::new(grouped.num_key_value_heads, grouped.head_dim, capacity);
                LayerCache::Grouped {
                    keys: rows.clone(),
                    values: rows,
                }
            }
            AttentionConfig::Latent(_) => {
                LayerCache::Latent(CachedRows::new(1, config.attention.cache_numbers(), capacity))
            }
        };
        Self {
            layers: (0..config.num_hidden_layers).map(|_| layer()).collect(),
            tokens: 0,
        }
    }

    /// Tokens per sequence that every layer has seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Bytes that the seen tokens of one sequence take.
    pub fn bytes_per_sequence(&self) -> usize {
        let numbers = |layer: &LayerCache| match layer {
            LayerCache::Grouped { keys, values } => keys.numbers_per_token() + values.numbers_per_token(),
            LayerCache::Latent(rows) => rows.numbers_per_token(),
        };
        self.layers.iter().map(numbers).sum::<usize>() * self.tokens * size_of::<f32>()
    }

    /// The cache of one layer.
    ///
    /// # Panics
    /// If the model has no such layer.
    pub fn layer(&mut self, index: usize) -> &mut LayerCache {
        &mut self.layers[index]
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
