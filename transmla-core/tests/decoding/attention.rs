//! One layer's attention, fed in pieces through a cache and all at once, over shapes.

use burn::tensor::{Device, Distribution, Tensor};
use proptest::prelude::*;
use serde_json::json;
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention, QueryProjection};
use transmla_core::model::{LayerCache, Linear, Rotary};
use transmla_core::{AttentionConfig, CacheFormat, KvCache, LatentConfig, ModelConfig, Quantisation, StorageDtype};

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
    let (config, attention) = latents([heads, 1], [width, rank, rope, value], false);
    (config, Attention::Latent(attention))
}

/// Heads in groups with a latent each; of tied ones all widths are the rank.
fn latents(
    [heads, groups]: [usize; 2],
    [width, rank, rope, value]: [usize; 4],
    tied: bool,
) -> (ModelConfig, LatentAttention) {
    let config = config(
        json!({
            "model_type": "llamamla", "kv_lora_rank": rank, "qk_rope_head_dim": rope, "qk_nope_head_dim": width,
            "v_head_dim": value, "latent_groups": groups, "tied_latent": tied,
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
        kv_down: linear(groups * (rank + rope), HIDDEN),
        kv_norm: None,
        latent_map: None,
        kv_up: (!tied).then(|| linear(heads * (width + value), rank)),
        o: linear(HIDDEN, heads * value),
        heads,
        shape,
        parameters: config.attention_parameters(0),
    };
    (config, attention)
}

/// Rows of a matrix.
fn rows(linear: &Linear, start: usize, count: usize) -> Linear {
    Linear::new(linear.weight.clone().narrow(0, start, count))
}

/// The attention of one group alone, with its part of the output.
fn group(attention: &LatentAttention, index: usize) -> Attention {
    let shape = LatentConfig {
        latent_groups: 1,
        ..attention.shape.clone()
    };
    let heads = attention.heads / attention.shape.latent_groups;
    let of_heads = |width: usize| (index * heads * width, heads * width);
    let QueryProjection::Plain(q) = &attention.q else {
        panic!("full queries");
    };
    let (first, count) = of_heads(shape.query_width());
    let (first_up, count_up) = of_heads(shape.qk_nope_head_dim + shape.v_head_dim);
    let (first_value, values) = of_heads(shape.v_head_dim);
    let down = shape.kv_lora_rank + shape.qk_rope_head_dim;
    Attention::Latent(LatentAttention {
        q: QueryProjection::Plain(rows(q, first, count)),
        kv_down: rows(&attention.kv_down, index * down, down),
        kv_up: attention.kv_up.as_ref().map(|up| rows(up, first_up, count_up)),
        o: Linear::new(attention.o.weight.clone().narrow(1, first_value, values)),
        heads,
        shape,
        ..attention.clone()
    })
}

/// The same with `kv_b_proj` written out, of which each head has the identity twice.
fn untied(attention: &LatentAttention) -> Attention {
    let rank = attention.shape.kv_lora_rank;
    let one = Tensor::<2>::eye(rank, &Device::flex());
    Attention::Latent(LatentAttention {
        kv_up: Some(Linear::new(one.repeat(&[2 * attention.heads, 1]))),
        shape: LatentConfig {
            tied: false,
            ..attention.shape.clone()
        },
        ..attention.clone()
    })
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

    /// Expanded (a whole text), absorbed (pieces of few tokens) and expanded from a cache (many) are one function, and each group is an
    /// attention of its own.
    #[test]
    fn groups_of_latents_are_attentions_of_their_own(
        batch in 1usize..3, groups in 1usize..4, shared in 1usize..4, half in 1usize..9, rank in 1usize..20,
        value in 1usize..12, pieces in prop::collection::vec(1usize..40, 1..6), tied: bool,
    ) {
        let widths = if tied { [rank, rank, 2 * half, rank] } else { [half, rank, 2 * half, value] };
        let (model, latents) = latents([groups * shared, groups], widths, tied);
        let attention = Attention::Latent(latents.clone());
        let (worst, mut cache) = through_cache(&model, &attention, batch, &pieces, StorageDtype::F32);
        prop_assert!(worst < 1e-4, "{}", worst);
        let Some(LayerCache::Latent { rows, .. }) = cache.layer(0) else { panic!("a latent cache") };
        prop_assert_eq!(rows.numbers_per_token(), groups * (rank + 2 * half));

        let device = Device::flex();
        let tokens = pieces.iter().sum::<usize>();
        let text = Tensor::<2>::random([batch * tokens, HIDDEN], Distribution::Normal(0.0, 1.0), &device);
        let rotary = Rotary::new(model.rope.of(0), 0..tokens, &device);
        let of = |attention: &Attention| attention.forward(text.clone(), batch, &rotary, None);
        let whole = of(&attention);
        let parts = (0..groups).map(|index| of(&group(&latents, index))).reduce(|sum, part| sum + part);
        let largest = |difference: Tensor<2>| difference.abs().max().into_scalar::<f32>();
        prop_assert!(largest(whole.clone() - parts.unwrap()) < 1e-4);
        if tied {
            prop_assert!(largest(whole - of(&untied(&latents))) < 1e-4);
        }
    }
}

/// A device of a tensor-parallel set holds its groups' part, and one at least.
#[test]
fn devices_hold_the_caches_of_their_heads() {
    let numbers = |config: &ModelConfig| [1, 2, 4, 8].map(|devices| config.attention.device_numbers(devices));
    assert_eq!(numbers(&grouped(4, 2, 8).0), [64, 32, 16, 16]);
    assert_eq!(numbers(&latent(8, 8, 28, 8, 8).0), [36; 4]);
    let (four, _) = latents([8, 4], [8, 7, 4, 8], false);
    assert_eq!(four.attention.cache_numbers(), 44);
    assert_eq!(numbers(&four), [44, 22, 11, 11]);
    let (three, _) = latents([9, 3], [8; 4], true);
    assert_eq!(numbers(&three), [48, 32, 16, 16]);
}

/// With each group's latent in a format of its own scales.
#[test]
fn quantised_latents_of_groups_are_near() {
    for tied in [false, true] {
        let (model, latents) = latents([4, 2], [16, 16, 8, 16], tied);
        let attention = Attention::Latent(latents);
        let device = Device::flex();
        let text = Tensor::<2>::random([2 * 30, HIDDEN], Distribution::Normal(0.0, 1.0), &device);
        let rotary = |positions| Rotary::new(model.rope.of(0), positions, &device);
        let whole = attention.forward(text.clone(), 2, &rotary(0..30), None);
        let format = CacheFormat::Quantised(Quantisation::Int8);
        let mut cache = KvCache::in_format(&model, 30, format).unwrap();
        let found = attention.forward(text, 2, &rotary(0..30), cache.layer(0));
        let worst: f32 = (found - whole).abs().max().into_scalar();
        assert!(worst > 0.0 && worst < 0.05, "{worst}");
        assert_eq!(cache.bytes_per_token(), format.bytes_per_token(&model).unwrap());
    }
}

/// What would be cut wrongly, or has no meaning.
#[test]
fn groups_that_do_not_fit_are_refused() {
    let read = |more: serde_json::Value| {
        let mut raw = json!({
            "model_type": "llamamla", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9,
            "num_attention_heads": 4, "kv_lora_rank": 6, "qk_rope_head_dim": 2, "qk_nope_head_dim": 4, "v_head_dim": 4,
        });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ModelConfig::from_json(raw.as_object().unwrap().clone())
    };
    assert!(read(json!({"latent_groups": 2})).is_ok());
    for (more, key) in [
        (json!({"latent_groups": 3}), "latent_groups"),
        (json!({"latent_groups": 0}), "latent_groups"),
        (json!({"tied_latent": true}), "tied_latent"),
        (json!({"latent_groups": 2, "use_qkv_norm": true}), "use_qkv_norm"),
        (
            json!({"latent_groups": 2, "model_type": "qwen3mla", "key_norm_heads": 2}),
            "key_norm_heads",
        ),
    ] {
        let error = read(more).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
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
