//! Odd configurations through the conversion: what is written says the same without the oddity.

use std::path::Path;

use serde_json::{Map, Value, json};
use transmla_convert::{MethodName, Recipe, Style};

use crate::common::write_random_variant;
use crate::conversion::{full_rank, run};

/// A model as it is written, and what becomes of its config.json afterwards.
struct Odd {
    name: &'static str,
    written: Value,
    changes: Value,
    unset: &'static [&'static str],
    /// Keys of the converted model's config.json.
    expected: Value,
}

fn odd(name: &'static str, written: Value, changes: Value, unset: &'static [&'static str], expected: Value) -> Odd {
    Odd {
        name,
        written,
        changes,
        unset,
        expected,
    }
}

fn cases() -> Vec<Odd> {
    let inside = json!({"rope_theta": 700.0, "rope_type": "default"});
    let yarn = json!({"type": "yarn", "factor": 4.0});
    vec![
        odd(
            "theta inside",
            json!({}),
            json!({"rope_scaling": inside}),
            &["rope_theta"],
            json!({"rope_theta": 700.0}),
        ),
        odd(
            "theta in rope_parameters",
            json!({}),
            json!({"rope_parameters": {"rope_theta": 700.0, "rope_type": "default"}}),
            &["rope_theta"],
            json!({"rope_theta": 700.0}),
        ),
        odd(
            "dynamic",
            json!({}),
            json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 128}),
            &[],
            json!({"max_position_embeddings": 128}),
        ),
        odd(
            "yarn, original context beside",
            json!({}),
            json!({"rope_scaling": yarn, "original_max_position_embeddings": 16}),
            &[],
            json!({}),
        ),
        odd(
            "keys left out",
            json!({"model_type": "mixtral", "num_local_experts": 8}),
            json!({}),
            &["rope_theta", "rms_norm_eps", "num_local_experts"],
            json!({"rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 131072}),
        ),
        odd(
            "gemma's keys left out",
            json!({"model_type": "gemma2", "tie_word_embeddings": true}),
            json!({}),
            &["rope_theta", "rms_norm_eps", "tie_word_embeddings"],
            json!({
                "tie_word_embeddings": true, "eos_token_id": 1, "max_position_embeddings": 8192,
            }),
        ),
        odd(
            "own head beside a tied one",
            json!({}),
            json!({"tie_word_embeddings": true}),
            &[],
            json!({"tie_word_embeddings": false}),
        ),
        odd(
            "no bias of o_proj",
            json!({"model_type": "qwen2"}),
            json!({"model_type": "llama", "attention_bias": true}),
            &[],
            json!({"attention_bias": true}),
        ),
        odd(
            "no bias at all",
            json!({}),
            json!({"attention_bias": true}),
            &[],
            json!({"attention_bias": false}),
        ),
        odd(
            "longer embedding",
            json!({}),
            json!({"vocab_size": 44}),
            &[],
            json!({"vocab_size": 50}),
        ),
        odd(
            "no multi-token-prediction layers",
            json!({"model_type": "mimo"}),
            json!({"num_nextn_predict_layers": 1}),
            &[],
            json!({"num_nextn_predict_layers": 0}),
        ),
        odd(
            "undeclared multi-token-prediction layers",
            json!({"model_type": "mimo", "num_nextn_predict_layers": 2}),
            json!({}),
            &["num_nextn_predict_layers"],
            json!({"num_nextn_predict_layers": 0}),
        ),
        odd(
            "ignored window",
            json!({}),
            json!({"sliding_window": 9, "use_sliding_window": true}),
            &[],
            json!({}),
        ),
        odd(
            "foreign switch",
            json!({"model_type": "mistral", "sliding_window": 9}),
            json!({"use_sliding_window": false}),
            &[],
            json!({}),
        ),
        odd(
            "window on all layers",
            json!({"model_type": "qwen2"}),
            json!({"use_sliding_window": true, "sliding_window": 9, "max_window_layers": 0}),
            &[],
            json!({}),
        ),
        odd(
            "sizes with a point",
            json!({}),
            json!({"hidden_size": 24.0, "num_hidden_layers": 2.0, "vocab_size": 50.0}),
            &[],
            json!({"hidden_size": 24, "num_hidden_layers": 2, "vocab_size": 50}),
        ),
    ]
}

fn write(folder: &Path, case: &Odd) {
    write_random_variant(folder, &case.written);
    let path = folder.join("config.json");
    let mut config: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config.extend(case.changes.as_object().unwrap().clone());
    config.retain(|key, _| !case.unset.contains(&key.as_str()));
    std::fs::write(path, Value::Object(config).to_string()).unwrap();
}

/// At full rank with one key head the original comes out, by either method and in either form, from a folder that says all
/// that the original's left to defaults, headers or another spelling.
#[test]
fn odd_models_convert_exactly() {
    for case in cases() {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("odd");
        write(&folder, &case);
        for (method, style) in [
            (MethodName::Transmla, Style::Auto),
            (MethodName::Coherent, Style::Auto),
            (MethodName::Transmla, Style::Family),
        ] {
            let options = Recipe {
                method,
                style,
                ..full_rank(&folder, 8, 1, false)
            };
            let outcome = run(&folder, &options);
            let worst = outcome.from_original.max_logit_difference;
            assert!(worst < 5e-4, "{}, {method:?}, {style:?}: {worst}", case.name);
            let written = outcome.config();
            assert_eq!(written.notes, Vec::<String>::new(), "{}", case.name);
            if style == Style::Family {
                for (key, value) in case.expected.as_object().unwrap() {
                    let found = written.raw.json(&format!("/{key}"));
                    assert_eq!(found, Some(value.to_string()), "{}: {key}", case.name);
                }
                let source = outcome.plan.source();
                let (written_rope, source_rope) = (written.rope.of(0), source.rope.of(0));
                assert_eq!(written_rope.theta, source_rope.theta, "{}", case.name);
                assert_eq!(written_rope.scaling, source_rope.scaling, "{}", case.name);
                assert_eq!(written.rope_limit, None, "{}", case.name);
                assert_eq!(written.logit_softcap, source.logit_softcap, "{}", case.name);
                for layer in 0..source.num_hidden_layers {
                    let (before, after) = (source.attention_parameters(layer), written.attention_parameters(layer));
                    assert_eq!(
                        (before.window, before.softcap),
                        (after.window, after.softcap),
                        "{}",
                        case.name
                    );
                }
            }
        }
    }
}
