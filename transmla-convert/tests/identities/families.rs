//! Every family through the conversion: what is exact comes out exactly, what is not is reported or refused.

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};
use transmla_convert::{
    DecoupledModel, Engine, FreqFold, KeyNorm, MethodName, Plan, Recipe, Silent, Style, approximation, decouple,
};
use transmla_core::checkpoint::Checkpoint;
use transmla_core::config::{LatentStyle, TRANSFORMERS_ARCHITECTURE};
use transmla_core::model::{Rotary, carried_tensors};
use transmla_core::{Decoder, DecoderLayer, KvCache, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch};

use transmla_eval::EvalOptions;

use crate::common::write_random_variant;
use crate::conversion::{family, full_rank, run, tokens};

/// Those that the identities of the plain families do not cover.
const FAMILIES: [&str; 14] = [
    "llama3.2",
    "mistral-window",
    "mixtral",
    "gemma2",
    "gemma3",
    "mimo",
    "qwen3",
    "qwen2.5",
    "smollm3",
    "granite",
    "olmo2",
    "phi3",
    "qwen3-moe",
    "qwen2-moe",
];

/// With r = all, the low-rank step loses nothing, whatever the family adds.
#[test]
fn full_rank_equals_the_decoupled_model() {
    for name in FAMILIES {
        let folder = family(name);
        let head_dim = ModelConfig::read(&folder).unwrap().grouped().unwrap().head_dim;
        for (rope_dim, freqfold, low_rank_queries) in [(head_dim, 1, false), (head_dim / 2, 4, true)] {
            let outcome = run(&folder, &full_rank(&folder, rope_dim, freqfold, low_rank_queries));
            let worst = outcome.from_decoupled.unwrap().max_logit_difference;
            assert!(worst < 5e-4, "{name}, d_r {rope_dim}: {worst}");
            let exact = approximation(outcome.plan.source(), outcome.plan.key_norm()).is_none();
            let errors = outcome.report.layers.iter().map(|layer| layer.key_error);
            let layers = outcome.report.layers.len();
            assert_eq!(errors.flatten().count(), if exact { 0 } else { layers }, "{name}");
        }
    }
}

/// Changes of config.json that make each family of a small llama.
fn variants() -> Vec<(&'static str, Value)> {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16});
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    vec![
        ("window", json!({"model_type": "mistral", "sliding_window": 9})),
        ("experts", json!({"model_type": "mixtral", "num_local_experts": 3})),
        ("mtp", json!({"model_type": "mimo", "num_nextn_predict_layers": 2})),
        ("llama3", json!({"rope_scaling": llama3})),
        ("yarn", json!({"rope_parameters": yarn})),
        ("linear", json!({"rope_scaling": {"type": "linear", "factor": 4.0}})),
        ("every bias", json!({"attention_bias": true})),
        (
            "no positions in one layer",
            json!({"model_type": "smollm3", "no_rope_layers": [1, 0], "tie_word_embeddings": true}),
        ),
        (
            "no positions",
            json!({"model_type": "smollm3", "no_rope_layers": [0, 0]}),
        ),
        (
            "multipliers",
            json!({
                "model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.3,
                "residual_multiplier": 0.4, "logits_scaling": 0.5, "tie_word_embeddings": true, "attention_bias": true,
            }),
        ),
        ("phi", json!({"model_type": "phi3"})),
        (
            "gemma",
            json!({
                "model_type": "gemma2", "query_pre_attn_scalar": 20, "attn_logit_softcapping": 3.0,
                "final_logit_softcapping": 5.0, "sliding_window": 9,
            }),
        ),
    ]
}

/// With one key head and d_r = d nothing has to be decoupled: the original comes out, by either method.
#[test]
fn one_key_head_at_full_rank_equals_the_original() {
    for (name, changes) in variants() {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("one");
        write_random_variant(&folder, &changes);
        for method in [MethodName::Transmla, MethodName::Coherent] {
            let options = Recipe {
                method,
                ..full_rank(&folder, 8, 1, false)
            };
            let worst = run(&folder, &options).from_original.max_logit_difference;
            assert!(worst < 5e-4, "{name}, {method:?}: {worst}");
        }
    }
}

/// Half of the rank, by both methods and refined: the result runs, and its first layer errs less than one that
/// gives nothing.
#[test]
fn every_family_converts_by_both_methods() {
    for name in FAMILIES {
        let folder = family(name);
        let half = {
            let full = full_rank(&folder, 8, 4, false);
            Recipe {
                kv_lora_rank: full.kv_lora_rank.map(|rank| rank / 2),
                ..full
            }
        };
        for (method, refine, use_qkv_norm) in [
            (MethodName::Transmla, 0, true),
            (MethodName::Coherent, 0, false),
            (MethodName::Coherent, 3, false),
        ] {
            let options = Recipe {
                method,
                refine: Some(refine),
                use_qkv_norm,
                ..half.clone()
            };
            let outcome = run(&folder, &options);
            let difference = outcome.from_original.max_logit_difference;
            assert!(difference.is_finite(), "{name}, {method:?}, {refine}: {difference}");
            // Random weights compress badly, so only the layer that has the original's inputs is held to something.
            let first = &outcome.report.layers[0];
            match method {
                MethodName::Transmla => assert_eq!(first.output_error, None),
                MethodName::Coherent => {
                    let error = first.output_error.unwrap();
                    assert!(error < 0.8, "{name}, {method:?}, {refine}: {error}");
                }
            }
            // Half of the components keep at least about half of the energy.
            assert!(
                (0.4..1.0).contains(&first.kept_energy),
                "{name}, {method:?}, {refine}: {first:?}"
            );
        }
    }
}

/// Decoding from the latent cache in pieces, absorbed, gives what all tokens at once give, expanded: windows, bounds and
/// normalised queries included.
#[test]
fn absorbed_equals_expanded() {
    for name in FAMILIES {
        let folder = family(name);
        let full = full_rank(&folder, 8, 4, false);
        let options = Recipe {
            kv_lora_rank: full.kv_lora_rank.map(|rank| rank / 2),
            ..full
        };
        let outcome = run(&folder, &options);
        let model = Decoder::open(&outcome.saved(), &Device::flex(), Residency::Loaded).unwrap();
        let text = tokens(512, 2, 60);
        let whole = model.logits(&text, None).unwrap();
        let mut cache = KvCache::new(model.config(), 4);
        let mut start = 0;
        for length in [30, 1, 7, 1, 21] {
            let ids = (0..2).flat_map(|row| text.row(row)[start..start + length].to_vec());
            let piece = TokenBatch::from_ids(ids.collect(), 2, length).unwrap();
            let found = model.logits(&piece, Some(&mut cache)).unwrap();
            let difference = found - whole.clone().narrow(1, start, length);
            let worst: f32 = difference.abs().max().into_scalar();
            assert!(worst < 1e-4, "{name}, tokens {start}..{}: {worst}", start + length);
            start += length;
        }
    }
}

/// What a linear map cannot express of normalised keys is told, layer by layer, and is really lost.
#[test]
fn the_loss_of_normalised_keys_is_reported() {
    let folder = family("qwen3");
    let options = Recipe {
        key_norm: Some(KeyNorm::Regression),
        ..full_rank(&folder, 16, 1, false)
    };
    let outcome = run(&folder, &options);
    let errors: Vec<f64> = outcome
        .report
        .layers
        .iter()
        .map(|layer| layer.key_error.unwrap())
        .collect();
    assert!(errors.iter().all(|error| (1e-4..0.5).contains(error)), "{errors:?}");
    assert!(outcome.from_original.max_logit_difference > 1e-3);
}

/// With one key head, no folding and d_r = d: normalised queries are the original's, and keys differ from the original's by
/// the error that is reported, which is that of a regression: what is left is uncorrelated with the inputs.
#[test]
fn normalised_queries_are_exact_and_keys_a_regression() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("one");
    write_random_variant(&folder, &json!({"model_type": "qwen3"}));
    let source = Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap();
    let options = Recipe {
        key_norm: Some(KeyNorm::Regression),
        ..full_rank(&folder, 8, 1, false)
    };
    let plan = Plan::new(source.config(), &options).unwrap();
    let text = tokens(50, 4, 32);
    let decoupled = decouple(&plan, &source, &text, &EvalOptions::default(), &mut Silent).unwrap();
    let model = DecoupledModel::new(&source, &plan, &decoupled.rotations).with_keys(&decoupled.keys);
    let (original, decoupled_layer) = (source.layer(0).unwrap(), model.layer(0).unwrap());
    let input = original.attention_input(source.embed(&text).unwrap());
    let rotary = Rotary::new(source.config().rope.of(0), 0..32, source.device());
    let expected = original.attention.project(input.clone(), 4, &rotary);
    let found = decoupled_layer.attention.project(input.clone(), 4, &rotary);
    let rope = |x: &Tensor<4>| x.clone().narrow(3, 8, 8);
    let worst: f32 = (rope(&found.q) - expected.q).abs().max().into_scalar();
    assert!(worst < 1e-5, "{worst}");
    let sum = |x: Tensor<4>| -> f64 { x.square().sum().into_data().iter::<f32>().map(f64::from).sum() };
    let error = sum(rope(&found.k) - expected.k.clone()) / sum(expected.k);
    let reported = decoupled.keys[0].error.unwrap();
    assert!(
        (error / reported - 1.0).abs() < 1e-3 && error > 1e-3,
        "{error} {reported}"
    );
    let still = Rotary::new(source.config().rope.of(0), 0..1, source.device());
    let keys = |layer: &DecoderLayer| {
        // Every token as a text of its own, so that none is rotated.
        let k = layer.attention.project(input.clone(), 128, &still).k;
        let width = k.dims()[3];
        k.narrow(3, width - 8, 8).reshape([128, 8])
    };
    let (wanted, fitted) = (keys(&original), keys(&decoupled_layer));
    let with_inputs = |x: Tensor<2>| -> f32 { x.transpose().matmul(input.clone()).abs().max().into_scalar() };
    let left = with_inputs(fitted - wanted.clone()) / with_inputs(wanted);
    assert!(left < 0.02, "{left}");
}

/// Multi-token-prediction (MTP) layers are in the new folder as they were, to the byte.
#[test]
fn mtp_layers_are_carried_over_untouched() {
    let folder = family("mimo");
    let options = Recipe {
        style: Style::Family,
        dtype: StorageDtype::Bf16,
        ..full_rank(&folder, 8, 4, false)
    };
    let outcome = run(&folder, &options);
    let config = outcome.config();
    let (before, after) = (
        Checkpoint::open(&folder).unwrap(),
        Checkpoint::open(&outcome.saved()).unwrap(),
    );
    let carried = carried_tensors(&config);
    assert_eq!(carried.len(), 16);
    assert_eq!(carried, carried_tensors(outcome.plan.source()));
    for spec in carried {
        assert_eq!(raw(&before, &spec.name), raw(&after, &spec.name), "{}", spec.name);
    }
}

/// Shape and bytes of a tensor as it lies in its file.
fn raw(checkpoint: &Checkpoint, name: &str) -> (Vec<usize>, Vec<u8>) {
    let mut bytes = Vec::new();
    let read = checkpoint.bytes(name, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    read.unwrap();
    (checkpoint.shape(name).unwrap().to_vec(), bytes)
}

/// Stock DeepSeek code would load these and be wrong: the feature in the way is named.
#[test]
fn stock_form_is_refused_by_feature() {
    for (name, word) in [
        ("mixtral", "experts"),
        ("qwen3-moe", "experts"),
        ("qwen2-moe", "experts"),
        ("gemma2", "soft-caps"),
        ("gemma3", "norms behind attention"),
        ("qwen3", "normalises the queries"),
        ("olmo2", "norms behind attention and MLP alone"),
        ("mistral-window", "sliding-window"),
        ("phi3", "sliding-window"),
        ("llama3.2", "llama3"),
    ] {
        let folder = family(name);
        let options = Recipe {
            style: Style::DeepseekV3,
            ..full_rank(&folder, 8, 4, false)
        };
        let config = ModelConfig::read(&folder).unwrap();
        let error = Plan::new(&config, &options).unwrap_err().to_string();
        assert!(
            error.contains("style = \"deepseek-v3\"") && error.contains(word),
            "{name}: {error}"
        );
    }
}

/// What a family adds has no place in stock code and needs none: keys of layers without positions are in the latent, beside
/// rotary keys of zeros, and multipliers are in the weights. Either form is the original, as it is read back.
#[test]
fn what_can_be_folded_into_stock_form_is_exact_there() {
    let models = tempfile::tempdir().unwrap();
    let named = ["no positions in one layer", "no positions", "multipliers", "phi"];
    let variants: Vec<_> = variants()
        .into_iter()
        .filter(|(name, _)| named.contains(name))
        .collect();
    assert_eq!(variants.len(), named.len());
    for (name, changes) in variants {
        let folder = models.path().join(name);
        write_random_variant(&folder, &changes);
        for (style, form) in [
            (Style::Auto, LatentStyle::DeepseekV3),
            (Style::Family, LatentStyle::Family),
        ] {
            let options = Recipe {
                style,
                ..full_rank(&folder, 8, 1, false)
            };
            let outcome = run(&folder, &options);
            assert_eq!(outcome.plan.style(), form, "{name}");
            let worst = outcome.from_original.max_logit_difference;
            assert!(worst < 5e-4, "{name}, {form:?}: {worst}");
            let keys = ["/embedding_multiplier", "/no_rope_layers", "/layer_types"];
            let kept = keys.iter().any(|key| outcome.config().raw.is_set(key));
            assert_eq!(kept, form == LatentStyle::Family, "{name}");
        }
    }
}

/// A layer without positions gives its rotary key nothing, and refinement leaves it so.
#[test]
fn layers_without_positions_have_no_rotary_key() {
    let folder = family("smollm3");
    for (method, refine) in [(MethodName::Transmla, 0), (MethodName::Coherent, 3)] {
        let options = Recipe {
            method,
            refine: Some(refine),
            kv_lora_rank: Some(32),
            ..full_rank(&folder, 8, 4, false)
        };
        let outcome = run(&folder, &options);
        let saved = Checkpoint::open(&outcome.saved()).unwrap();
        for (layer, turns) in [true, false, true, true].into_iter().enumerate() {
            let name = format!("model.layers.{layer}.self_attn.kv_a_proj_with_mqa.weight");
            let rows = saved.values(&name, &[40, 96]).unwrap();
            let turned = rows[32 * 96..].iter().any(|value| *value != 0.0);
            assert_eq!(turned, turns, "{method}, layer {layer}");
        }
    }
}

/// transformers computes every scaling, so for it the stock form keeps them and is exact.
#[test]
fn scaled_rope_in_stock_form_for_transformers() {
    let models = tempfile::tempdir().unwrap();
    for (name, changes) in variants()
        .into_iter()
        .filter(|(name, _)| ["llama3", "yarn", "linear"].contains(name))
    {
        let folder = models.path().join(name);
        write_random_variant(&folder, &changes);
        for method in [MethodName::Transmla, MethodName::Coherent] {
            let options = Recipe {
                method,
                engine: Some(Engine::Transformers),
                ..full_rank(&folder, 8, 1, false)
            };
            let outcome = run(&folder, &options);
            assert_eq!(outcome.plan.style(), LatentStyle::DeepseekV3, "{name}");
            let config = outcome.config();
            assert_eq!(config.raw.text("/architectures/0"), Some(TRANSFORMERS_ARCHITECTURE));
            assert_eq!(
                outcome.plan.converted().rope.of(0).scaling,
                outcome.plan.source().rope.of(0).scaling
            );
            let worst = outcome.from_original.max_logit_difference;
            assert!(worst < 5e-4, "{name}, {method:?}: {worst}");
        }
    }
}

/// Slots of the stock form turn unscaled; the coherent method fits them to that, and says what it costs.
#[test]
fn scaled_rope_in_stock_form_by_the_coherent_method() {
    let folder = family("llama3.2");
    let options = Recipe {
        style: Style::DeepseekV3,
        method: MethodName::Coherent,
        freqfold: FreqFold::Fixed(1),
        ..full_rank(&folder, 16, 1, false)
    };
    let outcome = run(&folder, &options);
    assert_eq!(outcome.config().raw.json("/rope_scaling").as_deref(), Some("null"));
    let plain: Vec<f64> = (0..8).map(|j| 500000f64.powf(-f64::from(j) / 8.0)).collect();
    assert_eq!(outcome.plan.converted().rope.of(0).frequencies(), plain);
    let errors: Vec<f64> = outcome
        .report
        .layers
        .iter()
        .filter_map(|layer| layer.output_error)
        .collect();
    assert!(
        errors.len() == 3 && errors[0] < 1.0 && errors.iter().all(|error| error.is_finite()),
        "{errors:?}"
    );
}
