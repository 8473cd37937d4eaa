//! The arithmetic of a conversion, counted before anything is done: plain data, from shapes alone.
//!
//! What is counted decides how long a conversion takes; what is left out (reading files, f64 sums of a few numbers) does not, unless
//! the disk is slow. An operation of attention's kernel counts for more than one of a plain product, as it is slower.

use std::ops::{Add, AddAssign, Mul};

use transmla_core::ModelConfig;
use transmla_core::config::AttentionConfig;
use transmla_core::model::{attention_tensors, residual_tensors};

use crate::spec::report::Stage;

/// Arithmetic by what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Work {
    /// Operations of matrix products in f32 on the device, two for each multiplication with its addition.
    pub products: f64,
    /// Numbers that elementwise operations on the device go through, once for each operation.
    pub elements: f64,
    /// Operations of eigendecompositions in f64 on the host; what is faster there counts for less.
    pub host: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            products: self.products + other.products,
            elements: self.elements + other.elements,
            host: self.host + other.host,
        }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<f64> for Work {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self {
            products: self.products * times,
            elements: self.elements * times,
            host: self.host * times,
        }
    }
}

/// A stage of a conversion and its arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageWork {
    /// The stage.
    pub stage: Stage,
    /// Its arithmetic.
    pub work: Work,
}

/// How much text a conversion goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextSize {
    /// Calibration samples.
    pub samples: usize,
    /// Those among them that the original writes first; 0 where all are read.
    pub written: usize,
    /// How many of those it writes side by side.
    pub side_by_side: usize,
    /// Tokens of a sample.
    pub tokens: usize,
    /// Evaluation windows; 0 where nothing is evaluated.
    pub windows: usize,
    /// Tokens of a window.
    pub window: usize,
}

/// What an operation of the attention kernel counts for, in those of a product.
const ATTENTION: f64 = 2.0;

/// What a number that is read alone counts for, in those that an elementwise operation reads and writes.
const READ: f64 = 0.5;

/// What an operation of an f64 product on the host counts for, in those of an eigendecomposition.
const HOST_PRODUCT: f64 = 0.25;

/// Elementwise operations: of an RMSNorm, of a gated activation, of a rotation, of a softmax over logits with its sum.
const NORM: f64 = 5.0;
const GATE: f64 = 6.0;
const ROTATION: f64 = 6.0;
const LOGITS: f64 = 6.0;

impl Work {
    /// A product of `[rows, inner]` and `[inner, columns]` on the device.
    pub(crate) fn product(rows: f64, inner: f64, columns: f64) -> Self {
        Self {
            products: 2.0 * rows * inner * columns,
            ..Self::default()
        }
    }

    /// Elementwise operations on so many numbers.
    pub(crate) fn elementwise(numbers: f64) -> Self {
        Self {
            elements: numbers,
            ..Self::default()
        }
    }

    /// A product on the host, in f64.
    pub(crate) fn host_product(rows: f64, inner: f64, columns: f64) -> Self {
        Self {
            host: HOST_PRODUCT * 2.0 * rows * inner * columns,
            ..Self::default()
        }
    }

    /// All eigenvectors of a symmetric matrix of so many rows, in f64, by divide and conquer: `4/3 n³` to make it tridiagonal,
    /// `4/3 n³` to merge the parts, `2 n³` to turn the vectors back.
    pub(crate) fn eigenvectors(rows: f64) -> Self {
        Self {
            host: 14.0 / 3.0 * rows.powi(3),
            ..Self::default()
        }
    }
}

/// The shapes of a layer that its arithmetic follows from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerShape {
    /// Width of the residual stream.
    pub hidden: f64,
    /// Numbers of attention's matrices.
    pub attention: f64,
    /// Numbers of the other matrices that a token is multiplied with.
    feed_forward: f64,
    /// Width of what is activated for a token.
    inner: f64,
    /// Query heads times the width of a score's product, and of a value.
    scores: f64,
    values: f64,
    /// Numbers that RoPE turns.
    rotary: f64,
    window: Option<f64>,
}

impl LayerShape {
    /// That of a model's layers: they are alike but for experts, of which it has the mean.
    pub fn of(config: &ModelConfig) -> Self {
        let heads = config.num_attention_heads as f64;
        let (score, value, rotary) = match &config.attention {
            AttentionConfig::Grouped(it) => {
                let width = it.head_dim as f64;
                (width, width, width * (heads + it.num_key_value_heads as f64))
            }
            AttentionConfig::Latent(it) => {
                let rope = it.qk_rope_head_dim as f64;
                (
                    it.qk_nope_head_dim as f64 + rope,
                    it.v_head_dim as f64,
                    rope * (heads + it.latent_groups as f64),
                )
            }
        };
        let matrices = |specs: &[transmla_core::TensorSpec]| -> f64 {
            let matrices = specs.iter().filter(|spec| spec.shape.len() == 2);
            matrices.map(|spec| spec.elements() as f64).sum()
        };
        let layers = config.num_hidden_layers;
        let of_each = |of_layer: &dyn Fn(usize) -> f64| (0..layers).map(of_layer).sum::<f64>() / layers as f64;
        let unmet = |layer| {
            config
                .experts_of(layer)
                .map_or(0.0, |experts| experts.unmet(config.hidden_size) as f64)
        };
        let inner = |layer| {
            config
                .experts_of(layer)
                .map_or(config.intermediate_size, |experts| experts.active_width()) as f64
        };
        Self {
            hidden: config.hidden_size as f64,
            attention: matrices(&attention_tensors(config, 0)),
            feed_forward: of_each(&|layer| matrices(&residual_tensors(config, layer)) - unmet(layer)),
            inner: of_each(&inner),
            scores: heads * score,
            values: heads * value,
            rotary,
            window: config.window.as_ref().map(|window| window.size as f64),
        }
    }

    /// Scores, softmax and values of sequences, of which a query sees half on average.
    pub fn kernel(&self, tokens: f64, sequence: f64) -> Work {
        let seen = (sequence / 2.0).min(self.window.unwrap_or(f64::INFINITY));
        Work::product(tokens, seen, self.scores + self.values) * ATTENTION
    }

    /// Attention alone, with the norm in front of it.
    pub fn attend(&self, tokens: f64, sequence: f64) -> Work {
        Work::product(tokens, 1.0, self.attention)
            + self.kernel(tokens, sequence)
            + Work::elementwise(tokens * (NORM * self.hidden + ROTATION * self.rotary))
    }

    /// Behind attention.
    pub fn feed(&self, tokens: f64) -> Work {
        Work::product(tokens, 1.0, self.feed_forward)
            + Work::elementwise(tokens * ((NORM + 2.0) * self.hidden + GATE * self.inner))
    }

    /// The whole layer.
    pub fn forward(&self, tokens: f64, sequence: f64) -> Work {
        self.attend(tokens, sequence) + self.feed(tokens)
    }
}

/// Logits of so many tokens and what follows from them.
pub(crate) fn head(config: &ModelConfig, tokens: f64) -> Work {
    let (hidden, vocabulary) = (config.hidden_size as f64, config.vocab_size as f64);
    Work::product(tokens, hidden, vocabulary) + Work::elementwise(tokens * (NORM * hidden + LOGITS * vocabulary))
}

/// What the original writes, a token of every sample at a time.
pub(crate) fn writing(config: &ModelConfig, text: &TextSize) -> Work {
    let (samples, layers) = (text.written as f64, config.num_hidden_layers as f64);
    let steps = text.written.div_ceil(text.side_by_side.max(1)) as f64 * text.tokens as f64;
    let layer = LayerShape::of(config);
    let tokens = samples * text.tokens as f64;
    let passed = layer.forward(tokens, text.tokens as f64) * layers + head(config, tokens);
    // A product of few rows takes as long as its matrix takes to be read.
    let read = (layer.attention + layer.feed_forward) * layers + (config.hidden_size * config.vocab_size) as f64;
    passed + Work::elementwise(READ * steps * read)
}

/// The perplexity of a model on windows.
pub(crate) fn evaluation(config: &ModelConfig, text: &TextSize) -> Work {
    let tokens = (text.windows * text.window) as f64;
    let layers = config.num_hidden_layers as f64;
    LayerShape::of(config).forward(tokens, text.window as f64) * layers + head(config, tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(more: &[(&str, serde_json::Value)]) -> ModelConfig {
        let config = json!({
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 64,
        });
        let mut map = config.as_object().unwrap().clone();
        map.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        ModelConfig::from_json(map).unwrap()
    }

    #[test]
    fn products_are_two_operations_for_each_weight_and_token() {
        let text = TextSize {
            samples: 0,
            written: 0,
            side_by_side: 0,
            tokens: 0,
            windows: 3,
            window: 10,
        };
        let work = evaluation(&config(&[]), &text);
        // Attention 32·32·2 + 2·16·32, feed-forward 3·32·48, head 32·50; scores and values of 5 tokens, 32 wide each.
        let weights = f64::from(2 * (3072 + 4608) + 1600);
        let scores = f64::from(2 * 2 * 5 * 64);
        assert_eq!(work.products, 30.0 * (2.0 * weights + ATTENTION * scores));
        assert_eq!(work.host, 0.0);
        let twice = evaluation(&config(&[]), &TextSize { windows: 6, ..text });
        assert_eq!(twice, work * 2.0);
    }

    #[test]
    fn what_is_written_side_by_side_reads_the_weights_once() {
        let text = |written, side_by_side| TextSize {
            samples: written,
            written,
            side_by_side,
            tokens: 16,
            windows: 0,
            window: 0,
        };
        let config = config(&[]);
        let (one, together, apart) = (text(1, 1), text(4, 4), text(4, 1));
        let [one, together, apart] = [one, together, apart].map(|text| writing(&config, &text));
        assert_eq!(apart, one * 4.0);
        assert_eq!(together.products, apart.products);
        let weights = f64::from(2 * (3072 + 4608) + 1600);
        assert_eq!(apart.elements - together.elements, READ * 3.0 * 16.0 * weights);
        assert_eq!(writing(&config, &text(0, 0)), Work::default());
    }

    #[test]
    fn of_experts_those_count_that_a_token_sees() {
        let experts = [
            ("model_type", json!("mixtral")),
            ("num_local_experts", json!(8)),
            ("num_experts_per_tok", json!(2)),
            ("sliding_window", json!(null)),
        ];
        let (dense, sparse) = (LayerShape::of(&config(&[])), LayerShape::of(&config(&experts)));
        let ratio = sparse.feed(1.0).products / dense.feed(1.0).products;
        assert!((2.0..2.1).contains(&ratio), "{ratio}");
    }
}
