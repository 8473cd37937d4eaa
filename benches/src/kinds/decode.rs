//! Decoding of one token through the attention of a layer: grouped queries compared with a latent.
//!
//! Between two passes through a layer a model passes through all others, and the layer's weights and cache leave the processor's
//! caches. Each run therefore takes the next of several layers that are larger than these caches together.

use std::cell::{Cell, RefCell};
use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use serde_json::json;
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention, QueryProjection};
use transmla_core::model::{Linear, Rotary};
use transmla_core::{AttentionConfig, KvCache, ModelConfig};

use crate::case::{Case, Timed, compare};
use crate::catalogue::{Heads, Strategy};
use crate::numbers::Numbers;

/// Capacity of the caches beyond the context, so that they do not grow while they are timed.
const ROOM: usize = 8;

/// Bytes of all layers together: as many as the copy with which they are compared moves.
const BYTES: u64 = 128 << 20;

/// Number of tokens on which the strategies are checked.
const CHECKED: usize = 24;

pub(crate) fn build(
    heads: Heads,
    context: usize,
    latents: &[(usize, usize)],
    strategies: &[Strategy],
    device: &Device,
) -> Box<dyn Case> {
    let mut numbers = Numbers::on(device, 4);
    let mut layers = vec![Layers::grouped(heads)];
    layers.extend(latents.iter().map(|(rank, rope)| Layers::latent(heads, *rank, *rope)));
    for (layers, strategy) in layers.iter_mut().zip(strategies) {
        let each = strategy.bytes.unwrap_or(BYTES).max(1);
        for _ in 0..BYTES.div_ceil(each) {
            layers.push(context, &mut numbers);
        }
    }
    Box::new(Decode {
        device: device.clone(),
        layers,
        hidden: heads.hidden,
        context,
    })
}

struct Decode {
    device: Device,
    layers: Vec<Layers>,
    hidden: usize,
    context: usize,
}

/// Layers of one shape, used in turn.
struct Layers {
    name: String,
    config: ModelConfig,
    attention: Box<dyn Fn(&mut Numbers) -> Attention>,
    layers: Vec<Layer>,
    next: Cell<usize>,
}

/// An attention with its cache of a text.
struct Layer {
    attention: Attention,
    cache: RefCell<KvCache>,
    /// Position of the measured token.
    rotary: Rotary,
    /// The measured token's hidden state, `[1, hidden]`.
    input: Tensor<2>,
}

impl Layers {
    fn grouped(heads: Heads) -> Self {
        let config = config(
            heads,
            json!({"model_type": "llama", "num_key_value_heads": heads.key, "head_dim": heads.width}),
        );
        let (queries, keys) = (heads.query * heads.width, heads.key * heads.width);
        let parameters = config.attention_parameters(0);
        let attention = move |numbers: &mut Numbers| {
            Attention::Grouped(GroupedAttention {
                q: linear(queries, heads.hidden, numbers),
                k: linear(keys, heads.hidden, numbers),
                v: linear(keys, heads.hidden, numbers),
                o: linear(heads.hidden, queries, numbers),
                query_heads: heads.query,
                key_heads: heads.key,
                q_norm: None,
                k_norm: None,
                parameters,
            })
        };
        Self::new("grouped".into(), config, Box::new(attention))
    }

    fn latent(heads: Heads, rank: usize, rope: usize) -> Self {
        let config = config(
            heads,
            json!({
                "model_type": "llamamla", "kv_lora_rank": rank, "qk_rope_head_dim": rope,
                "qk_nope_head_dim": heads.width, "v_head_dim": heads.width,
            }),
        );
        let AttentionConfig::Latent(shape) = config.attention.clone() else {
            unreachable!("llamamla is a latent family");
        };
        let parameters = config.attention_parameters(0);
        let attention = move |numbers: &mut Numbers| {
            Attention::Latent(LatentAttention {
                q: QueryProjection::Plain(linear(heads.query * shape.query_width(), heads.hidden, numbers)),
                q_heads: None,
                key_scale: None,
                kv_down: linear(rank + rope, heads.hidden, numbers),
                kv_norm: None,
                latent_map: None,
                kv_up: Some(linear(heads.query * 2 * heads.width, rank, numbers)),
                o: linear(heads.hidden, heads.query * heads.width, numbers),
                heads: heads.query,
                shape: shape.clone(),
                parameters,
            })
        };
        Self::new(format!("latent-{rank}+{rope}"), config, Box::new(attention))
    }

    fn new(name: String, config: ModelConfig, attention: Box<dyn Fn(&mut Numbers) -> Attention>) -> Self {
        Self {
            name,
            config,
            attention,
            layers: Vec::new(),
            next: Cell::new(0),
        }
    }

    /// Adds a layer.
    fn push(&mut self, context: usize, numbers: &mut Numbers) {
        let input: Tensor<2> = numbers.tensor([1, self.config.hidden_size], 1.0);
        let device = input.device();
        let mut cache = KvCache::new(&self.config, context + ROOM);
        cache
            .fill_at_random(1, context, &device)
            .expect("an empty cache takes any batch");
        self.layers.push(Layer {
            attention: (self.attention)(numbers),
            cache: RefCell::new(cache),
            rotary: Rotary::new(self.config.rope.of(0), context..context + 1, &device),
            input,
        });
    }

    /// The next layer in turn.
    fn next(&self) -> &Layer {
        let turn = self.next.get();
        self.next.set((turn + 1) % self.layers.len());
        &self.layers[turn]
    }

    /// Checks the last token of a text: decoded from a cache of the others, and computed with all of them at once.
    fn check(&self, text: &Tensor<2>) -> anyhow::Result<()> {
        let device = text.device();
        let attention = &self.layers[0].attention;
        let rotary = |positions| Rotary::new(self.config.rope.of(0), positions, &device);
        let whole = attention.forward(text.clone(), 1, &rotary(0..CHECKED), None);
        let mut cache = KvCache::new(&self.config, CHECKED);
        let last = CHECKED - 1;
        attention.forward(text.clone().narrow(0, 0, last), 1, &rotary(0..last), cache.layer(0));
        let token = text.clone().narrow(0, last, 1);
        let decoded = attention.forward(token, 1, &rotary(last..CHECKED), cache.layer(0));
        compare(&self.name, &decoded, &whole.narrow(0, last, 1), 1e-4)
    }
}

impl Case for Decode {
    fn check(&self) -> anyhow::Result<()> {
        let text = Numbers::on(&self.device, 5).tensor([CHECKED, self.hidden], 1.0);
        self.layers.iter().try_for_each(|layers| layers.check(&text))
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        let layer = self.layers[strategy].next();
        layer.cache.borrow_mut().truncate(self.context);
        Box::new(move || {
            let mut cache = layer.cache.borrow_mut();
            let cache = cache.layer(0);
            black_box(layer.attention.forward(layer.input.clone(), 1, &layer.rotary, cache));
        })
    }
}

fn config(heads: Heads, attention: serde_json::Value) -> ModelConfig {
    let mut keys = json!({
        "hidden_size": heads.hidden, "intermediate_size": 1, "num_hidden_layers": 1, "vocab_size": 1,
        "num_attention_heads": heads.query,
    });
    let (Some(keys), serde_json::Value::Object(attention)) = (keys.as_object_mut(), attention) else {
        unreachable!("both are objects");
    };
    keys.extend(attention);
    ModelConfig::from_json(std::mem::take(keys)).expect("the catalogue's shapes are valid")
}

/// Random weights that preserve the magnitude of their inputs.
fn linear(out: usize, input: usize, numbers: &mut Numbers) -> Linear {
    Linear::new(numbers.tensor([out, input], (3.0 / input as f64).sqrt()))
}
