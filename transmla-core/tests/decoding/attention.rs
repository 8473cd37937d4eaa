//! One layer's attention, fed in pieces through a cache and all at once, over shapes.

use burn::tensor::{Device, Distribution, Tensor};
use proptest::prelude::*;
use serde_json::json;
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention, QueryProjection};
use transmla_core::model::{LayerCache, Linear, Rotary};
use transmla_core::{AttentionConfig, KvCache, ModelConfig, StorageDtype};

const HIDDEN: usize = 24;

fn linear(out: usize, input: usize) -> Linear {
    let spread = (input as f64).powf(-0.5);
    Linear::new(Tensor::random(
        [out, input],
        Distribution::Normal(0.0, spread),
        &Device::flex(),
    ))
}

fn config(mut attention: serde_json::Value, heads: usize) -> ModelConfig {
    let keys = attention.as_object_mut().unwrap();
    for (key, value) in [
        ("hidden_size", HIDDEN),
        ("intermediate_size", 1),
        ("num_hidden_layers", 1),
        ("vocab_size", 1),
        ("num_attention_heads", heads),
    ] {
        keys.insert(key.into(), json!(value));
    }
    ModelConfig::from_json(std::mem::take(keys)).unwrap()
}

fn grouped(groups: usize, shared: usize, width: usize) -> (ModelConfig, Attention) {
    let heads = groups * shared;
    let config = config(
        json!({"model_type": "llama", "num_key_value_heads": groups, "head_dim": width}),
        heads,
    );
    let attention = GroupedAttention {
        q: linear(heads * width, HIDDEN),
        k: linear(groups * width, HIDDEN),
        v: linear(groups * width, HIDDEN),
        o: linear(HIDDEN, heads * width),
        query_heads: heads,
        key_heads: groups,
        q_norm: None,
        k_norm: None,
        parameters: config.attention_parameters(0),
    };
    (config, Attention::Grouped(attention))
}

fn latent(heads: usize, width: usize, rank: usize, rope: usize, value: usize) -> (ModelConfig, Attention) {
    let config = config(
        json!({
            "model_type": "llamamla", "kv_lora_rank": rank, "qk_rope_head_dim": rope,
            "qk_nope_head_dim": width, "v_head_dim": value,
        }),
        heads,
    );
    let AttentionConfig::Latent(shape) = config.attention.clone() else {
        panic!("llamamla is a latent family");
    };
    let attention = LatentAttention {
        q: QueryProjection::Plain(linear(heads * (width + rope), HIDDEN)),
        q_heads: None,
        key_scale: None,
        kv_down: linear(rank + rope, HIDDEN),
        kv_norm: None,
        latent_map: None,
        kv_up: linear(heads * (width + value), rank),
        o: linear(HIDDEN, heads * value),
        heads,
        shape,
        parameters: config.attention_parameters(0),
    };
    (config, Attention::Latent(attention))
}

/// Largest difference between pieces through a cache and the whole, and the cache.
fn through_cache(
    config: &ModelConfig,
    attention: &Attention,
    batch: usize,
    pieces: &[usize],
    dtype: StorageDtype,
) -> (f32, KvCache) {
    let device = Device::flex();
    let tokens: usize = pieces.iter().sum();
    let text = Tensor::<3>::random([batch, tokens, HIDDEN], Distribution::Normal(0.0, 1.0), &device);
    let rotary = |positions| Rotary::new(config.rope.of(0), positions, &device);
    let whole = attention.forward(text.clone().flatten(0, 1), batch, &rotary(0..tokens), None);
    let whole = whole.reshape([batch, tokens, HIDDEN]);
    let mut cache = KvCache::with_dtype(config, 3, dtype);
    let (mut start, mut worst) = (0, 0.0f32);
    for &length in pieces {
        let piece = text.clone().narrow(1, start, length).flatten(0, 1);
        let found = attention.forward(piece, batch, &rotary(start..start + length), cache.layer(0));
        let difference = found.reshape([batch, length, HIDDEN]) - whole.clone().narrow(1, start, length);
        worst = worst.max(difference.abs().max().into_scalar());
        start += length;
    }
    (worst, cache)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn cached_equals_whole(
        batch in 1usize..4, heads in 1usize..4, shared in 1usize..4, half in 1usize..9, rank in 1usize..20,
        value in 1usize..12, pieces in prop::collection::vec(1usize..40, 1..6),
    ) {
        let (model, attention) = grouped(heads, shared, 2 * half);
        let (worst, _) = through_cache(&model, &attention, batch, &pieces, StorageDtype::F32);
        prop_assert!(worst < 1e-4, "grouped: {}", worst);
        let (model, attention) = latent(heads * shared, half, rank, 2 * half, value);
        let (worst, cache) = through_cache(&model, &attention, batch, &pieces, StorageDtype::F32);
        prop_assert!(worst < 1e-4, "latent: {}", worst);
        let mut cache = cache;
        let Some(LayerCache::Latent { rows, .. }) = cache.layer(0) else { panic!("a latent cache") };
        prop_assert_eq!(rows.numbers_per_token(), rank + 2 * half);
        prop_assert_eq!(rows.lengths(), &vec![pieces.iter().sum::<usize>(); batch][..]);
    }
}

/// Rounding of what is kept is all that a smaller format changes.
#[test]
fn smaller_formats_round_what_is_kept() {
    for (model, attention) in [grouped(2, 2, 16), latent(4, 16, 24, 8, 16)] {
        let pieces = [20, 1, 1, 5, 1];
        let [full, bf16, f16] = [StorageDtype::F32, StorageDtype::Bf16, StorageDtype::F16]
            .map(|dtype| through_cache(&model, &attention, 2, &pieces, dtype).0);
        assert!(full < 1e-5 && f16 > full && bf16 > full, "{full} {bf16} {f16}");
        assert!(f16 < 4e-3 && bf16 < 3e-2, "{bf16} {f16}");
    }
}
