//! Keys whose norm is kept: exact in form, with its scale in the cache.

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use transmla_convert::{Engine, KeyNorm, MethodName, Plan, Recipe, Style, approximation};
use transmla_core::{Decoder, KvCache, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch};

use crate::common::write_random_variant;
use crate::conversion::{family, full_rank, run, tokens};

/// Full rank in `f32`, norms of keys kept.
fn exact(folder: &Path, rope_dim: usize, freqfold: usize) -> Recipe {
    Recipe {
        key_norm: Some(KeyNorm::Exact),
        ..full_rank(folder, rope_dim, freqfold, false)
    }
}

/// With one key head, which shares its positions with no other, nothing is lost: the original's logits, by either method. What
/// a regression loses here is a thousand times as much.
#[test]
fn full_rank_is_the_original() {
    let biased = [("qwen3", true), ("olmo2", true)];
    let plain = ["qwen3", "gemma3_text", "olmo2"].map(|model_type| (model_type, false));
    for (model_type, biases) in plain.into_iter().chain(biased) {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("one");
        let window = json!({
            "model_type": model_type, "sliding_window": 20, "layer_types": ["sliding_attention", "full_attention"],
            "use_sliding_window": true, "query_pre_attn_scalar": 11, "attention_bias": biases,
        });
        write_random_variant(&folder, &window);
        for (method, refine, use_qkv_norm) in [
            (MethodName::Transmla, 0, false),
            (MethodName::Coherent, 0, false),
            (MethodName::Coherent, 3, false),
        ] {
            let options = Recipe {
                method,
                refine: Some(refine),
                use_qkv_norm,
                ..exact(&folder, 8, 1)
            };
            let kept = run(&folder, &options);
            let worst = kept.from_original.max_logit_difference;
            assert!(
                worst < 1e-4,
                "{model_type}, biases {biases}, {method}, {refine} steps: {worst}"
            );
            assert!(kept.report.layers.iter().all(|layer| layer.key_error.is_none()));
            let fitted = Recipe {
                key_norm: Some(KeyNorm::Regression),
                ..options
            };
            let lost = run(&folder, &fitted).from_original.max_logit_difference;
            assert!(lost > 1e-3, "{model_type}, {method}, {refine} steps: {lost}");
        }
    }
}

/// Several key heads, each with a scale of its own or all with one: the low-rank step loses nothing at full rank.
#[test]
fn full_rank_is_the_decoupled_model() {
    for name in ["qwen3", "gemma3", "olmo2", "qwen3-moe"] {
        let folder = family(name);
        for (rope_dim, freqfold) in [(16, 1), (8, 4)] {
            let worst = run(&folder, &exact(&folder, rope_dim, freqfold))
                .from_decoupled
                .unwrap();
            assert!(worst.max_logit_difference < 5e-4, "{name}, d_r {rope_dim}: {worst:?}");
        }
    }
}

/// Decoding from the cache in pieces, absorbed, gives what all tokens at once give, expanded, and the cache has a number more for each
/// scale of a norm.
#[test]
fn absorbed_equals_expanded() {
    for (name, scales) in [("qwen3", 2), ("gemma3", 2), ("olmo2", 1), ("qwen3-moe", 2)] {
        let folder = family(name);
        let options = Recipe {
            kv_lora_rank: Some(24),
            ..exact(&folder, 8, 4)
        };
        let outcome = run(&folder, &options);
        assert_eq!(outcome.plan.cache_numbers(), (64, 24 + 8 + scales));
        let model = Decoder::open(&outcome.saved(), &Device::flex(), Residency::Loaded).unwrap();
        let text = tokens(512, 2, 60);
        let whole = model.logits(&text, None).unwrap();
        // Where two experts are nearly as good, a rounded cache chooses the other.
        let half = if model.config().experts.is_some() { 1.5 } else { 0.5 };
        for (dtype, tolerance) in [(StorageDtype::F32, 1e-4), (StorageDtype::Bf16, half)] {
            let mut cache = KvCache::with_dtype(model.config(), 4, dtype);
            let mut start = 0;
            for length in [30, 1, 7, 1, 21] {
                let ids = (0..2).flat_map(|row| text.row(row)[start..start + length].to_vec());
                let piece = TokenBatch::from_ids(ids.collect(), 2, length).unwrap();
                let found = model.logits(&piece, Some(&mut cache)).unwrap();
                let difference = found - whole.clone().narrow(1, start, length);
                let worst: f32 = difference.abs().max().into_scalar();
                assert!(
                    worst < tolerance,
                    "{name}, {dtype}, tokens {start}..{}: {worst}",
                    start + length
                );
                start += length;
            }
            // A layer with a window has forgotten what the next token does not see.
            let rows = |layer| {
                let window = model.config().attention_parameters(layer).window;
                window.map_or(60, |window| window - 1)
            };
            let rows: usize = (0..model.config().num_hidden_layers).map(rows).sum();
            assert_eq!(cache.bytes(), rows * (32 + scales) * 2 * dtype.bytes());
        }
    }
}

/// Where widths are left open, scales are part of the half that is kept.
#[test]
fn the_budget_has_the_scales_in_it() {
    let source = ModelConfig::read(&family("qwen3")).unwrap();
    let recipe = |key_norm| Recipe {
        key_norm,
        ..Recipe::default()
    };
    for key_norm in [None, Some(KeyNorm::Regression), Some(KeyNorm::Exact)] {
        let plan = Plan::new(&source, &recipe(key_norm)).unwrap();
        assert_eq!(plan.cache_numbers(), (64, 32), "{key_norm:?}");
    }
    let chosen = |engine| {
        let recipe = Recipe { engine, ..recipe(None) };
        KeyNorm::chosen(&recipe, &source)
    };
    assert_eq!(chosen(None), KeyNorm::Exact);
    assert_eq!(chosen(Some(Engine::Transformers)), KeyNorm::Exact);
    assert_eq!(chosen(Some(Engine::Vllm)), KeyNorm::Regression);
    assert!(approximation(&source, KeyNorm::Exact).is_none());
    assert!(approximation(&source, KeyNorm::Regression).is_some());
}

/// No model is written that something would run and get wrong.
#[test]
fn what_cannot_be_is_refused() {
    let refused = |name: &str, change: &dyn Fn(&mut Recipe)| {
        let mut recipe = Recipe {
            key_norm: Some(KeyNorm::Exact),
            ..Recipe::default()
        };
        change(&mut recipe);
        let source = ModelConfig::read(&family(name)).unwrap();
        Plan::new(&source, &recipe).unwrap_err().to_string()
    };
    let without_norms = refused("llama3.2", &|_| ());
    assert!(without_norms.contains("does not normalise its keys"), "{without_norms}");
    let plugin = refused("qwen3", &|recipe| recipe.engine = Some(Engine::Vllm));
    assert!(plugin.contains("factor of a token's scores"), "{plugin}");
    let plugin = refused("olmo2", &|recipe| recipe.engine = Some(Engine::Vllm));
    assert!(plugin.contains("factor of a token's scores"), "{plugin}");
    let stock = refused("qwen3", &|recipe| recipe.style = Style::DeepseekV3);
    assert!(stock.contains("normalises the queries"), "{stock}");
    let text = std::fs::read(family("qwen3").join("config.json")).unwrap();
    let mut keys: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    for (name, value) in [
        ("model_type", json!("qwen3mla")),
        ("kv_lora_rank", json!(8)),
        ("qk_nope_head_dim", json!(16)),
        ("qk_rope_head_dim", json!(8)),
        ("v_head_dim", json!(16)),
    ] {
        keys.insert(name.into(), value);
    }
    assert!(ModelConfig::from_json(keys.clone()).is_ok());
    let mut read = |key: &str, value: Value| {
        keys.insert(key.into(), value);
        ModelConfig::from_json(keys.clone()).map_err(|error| error.to_string())
    };
    for heads in [0, 4] {
        let error = read("key_norm_heads", json!(heads)).unwrap_err();
        assert!(error.contains("key_norm_heads"), "{error}");
    }
    // How wide the keys of a scale are is said where they are not those of a head, and there alone.
    read("key_norm_heads", json!(1)).unwrap();
    let error = read("key_norm_width", json!(32)).unwrap_err();
    assert!(error.contains("key_norm_width"), "{error}");
    read("model_type", json!("olmo2mla")).unwrap();
    for (key, wrong, right) in [
        ("key_norm_width", json!(null), json!(32)),
        ("key_norm_width", json!(24), json!(32)),
        ("key_norm_heads", json!(2), json!(1)),
    ] {
        let error = read(key, wrong).unwrap_err();
        assert!(error.contains(key), "{error}");
        read(key, right).unwrap();
    }
}
