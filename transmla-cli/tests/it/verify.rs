//! `transmla verify` finds what is wrong with a saved model.

use serde_json::{Value, json};

use crate::support::{Workplace, transmla};

fn verify(place: &Workplace, more: &[&str]) -> crate::support::Ran {
    let model = place.arg("outputs");
    let start = ["verify", "--seqlen", "24", "--max-windows", "2", "--model-path", &model];
    transmla(&[&start[..], more].concat())
}

fn set_config(place: &Workplace, key: &str, value: Value) {
    let path = place.path("outputs/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn a_converted_model_is_sound() {
    let place = Workplace::new();
    for dtype in ["bf16", "fp16", "fp32"] {
        transmla(&place.convert(&["--dtype", dtype, "--force"])).succeeds();
        let json = verify(&place, &["--json", "--against", &place.arg("model")]).json();
        assert_eq!(json["passed"], true, "{json}");
        let norms = &json["latent_norms"];
        // A thousandth of a latent at most, most of which is taken back.
        assert!(norms["max_logit_difference"].as_f64() < Some(0.5), "{json}");
        assert!(norms["kl"].as_f64() < Some(1e-5), "{json}");
        let formats = json["formats"].as_array().unwrap();
        let names: Vec<&str> = formats.iter().filter_map(|it| it["format"].as_str()).collect();
        assert_eq!(names, ["bf16", "fp16", "Q8_0"]);
        for (format, most) in formats.iter().zip([2e-2, 1e-3, 1e-2]) {
            assert_eq!(format["passed"], true, "{dtype}: {json}");
            assert!(format["kl"].as_f64() < Some(most), "{dtype}: {json}");
        }
        assert!(json["original"]["kl"].as_f64() > Some(0.01), "{json}");
        assert_eq!(json["original"]["positions"], 48);
    }
    // What is unpacked for it stays for as long as it is read.
    verify(&place, &["--against", "embedded"]).succeeds();
    let limited = ["--against", &place.arg("model"), "--max-kl", "1e-6"];
    let ran = verify(&place, &limited);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout.contains("WRONG") && ran.stderr.contains("--max-kl"),
        "{ran:?}"
    );
}

#[test]
fn norms_that_change_the_model_are_found() {
    let place = Workplace::new();
    transmla(&place.convert(&["--use-qkv-norm", "--dtype", "fp32"])).succeeds();
    assert_eq!(verify(&place, &["--json"]).json()["latent_norms"], Value::Null);
    // The same tensors said to have norms that change nothing.
    let recipe = place.path("outputs/transmla.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, text.replace("use-qkv-norm = true", "use-qkv-norm = false")).unwrap();
    let ran = verify(&place, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stdout.contains("not sound") && ran.stderr.contains("norms"),
        "{ran:?}"
    );
}

/// With a text, perplexities are compared too.
#[test]
fn perplexities_in_each_format() {
    let place = Workplace::new();
    transmla(&place.convert(&[])).succeeds();
    let text = crate::support::models().join("stories").display().to_string();
    let json = verify(&place, &["--json", "--dataset", &text]).json();
    let expected = json["perplexity"].as_f64().unwrap();
    for (format, most) in json["formats"].as_array().unwrap().iter().zip([2e-2, 5e-3, 2e-2]) {
        let found = format["perplexity"].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < most, "{json}");
    }
    let table = verify(&place, &["--dataset", &text]).succeeds();
    for words in ["in fp16", "in Q8_0", "perplexity"] {
        assert!(table.contains(words), "{table}");
    }
}

/// Zeros instead of what half precision cannot hold: what became of models of an older form that were saved in it.
#[test]
fn latents_that_half_precision_took_are_found() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp16"])).succeeds();
    let path = place.path("outputs/model.safetensors");
    let mut file = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let place_of = &header["model.layers.2.self_attn.kv_a_proj_with_mqa.weight"]["data_offsets"][0];
    let start = 8 + length + place_of.as_u64().unwrap() as usize;
    // 28 latent rows of 64 numbers.
    file[start..start + 28 * 64 * 2].fill(0);
    std::fs::write(&path, file).unwrap();
    let ran = verify(&place, &[]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.contains("28 of the 28 latent rows"), "{ran:?}");
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    transmla(&["export", "--model-path", &model, "--output", &output])
        .fails(1, &["layers.2", "convert the original again"]);
}

#[test]
fn files_that_do_not_fit_are_found() {
    let place = Workplace::new();
    transmla(&place.convert(&["--style", "family"])).succeeds();
    let sound = verify(&place, &[]).succeeds();
    assert!(sound.contains("modeling_transmla.py"), "{sound}");
    std::fs::remove_file(place.path("outputs/modeling_transmla.py")).unwrap();
    assert!(verify(&place, &[]).stdout.contains("which is not there"));
    transmla(&place.convert(&["--force"])).succeeds();
    set_config(&place, "rms_norm_eps", json!(1e-5));
    assert!(verify(&place, &[]).stdout.contains("WRONG: rms_norm_eps 1e-5"));
    for (key, wrong, right) in [
        ("num_key_value_heads", json!(4), json!(8)),
        ("head_dim", json!(99), json!(null)),
        ("vocab_size", json!(500), json!(512)),
    ] {
        set_config(&place, key, wrong);
        let ran = verify(&place, &[]);
        assert!(ran.code == Some(1) && ran.stdout.contains("WRONG: "), "{key}: {ran:?}");
        set_config(&place, key, right);
    }
    set_config(&place, "kv_lora_rank", json!(27));
    verify(&place, &[]).fails(1, &["kv_a_proj_with_mqa"]);
    transmla(&["verify", "--model-path", "embedded"]).fails(1, &["no latent attention"]);
}

/// An older version left the source's windows in config.json and its kind of cache beside it.
#[test]
fn caches_that_forget_are_found() {
    let place = Workplace::new();
    transmla(&place.convert(&["--style", "family"])).succeeds();
    let sound = verify(&place, &[]).succeeds();
    assert!(sound.contains("0 of 5 layers have a window"), "{sound}");
    set_config(&place, "model_type", json!("mistralmla"));
    set_config(&place, "architectures", json!(["MistralMLAForCausalLM"]));
    set_config(&place, "sliding_window", json!(8));
    let types = [
        "sliding_attention",
        "full_attention",
        "full_attention",
        "full_attention",
        "full_attention",
    ];
    set_config(&place, "layer_types", json!(types));
    assert!(verify(&place, &[]).succeeds().contains("1 of 5 layers have a window"));
    // In a stock folder nothing else reads it.
    std::fs::remove_dir_all(place.path("outputs")).unwrap();
    transmla(&place.convert(&[])).succeeds();
    set_config(&place, "use_sliding_window", json!(false));
    set_config(&place, "sliding_window", json!(8));
    let ran = verify(&place, &[]);
    assert!(
        ran.code == Some(1) && ran.stdout.contains("WRONG: sliding_window"),
        "{ran:?}"
    );
    set_config(&place, "sliding_window", json!(null));
    verify(&place, &[]).succeeds();
    let generation = place.path("outputs/generation_config.json");
    std::fs::write(generation, r#"{"cache_implementation": "hybrid"}"#).unwrap();
    let ran = verify(&place, &[]);
    assert!(
        ran.code == Some(1) && ran.stdout.contains("cache_implementation"),
        "{ran:?}"
    );
}
