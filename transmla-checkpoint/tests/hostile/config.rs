//! config.json that is absent, no configuration, or claims what cannot be.

use serde_json::{Value, json};

use crate::fixture::{Folder, Model, assert_says};

/// The error of the valid model with one key changed.
fn error_with(key: &str, value: Value) -> String {
    let mut model = Model::valid();
    model.config.insert(key.into(), value);
    model.error()
}

const SIZES: &[&str] = &[
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
    "head_dim",
];

#[test]
fn no_config_json() {
    let folder = Model::valid().save();
    std::fs::remove_file(folder.file("config.json")).unwrap();
    assert_says(&folder.error(), &["config.json", "missing"]);
    assert_says(&Folder::empty().error(), &["config.json", "missing"]);
}

#[test]
fn not_json() {
    let bom = "\u{feff}{}";
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    for text in ["", "{", "[]", "null", "5", "model_type: llama", "{'a': 1}", bom, &deep] {
        let folder = Model::valid().save();
        folder.put("config.json", text);
        assert_says(&folder.error(), &["config.json"]);
    }
}

#[test]
fn not_utf8() {
    let folder = Model::valid().save();
    folder.put("config.json", [b'{', 0xff, b'}']);
    assert_says(&folder.error(), &["config.json"]);
}

#[test]
fn a_number_that_json_cannot_hold() {
    let folder = Model::valid().save();
    let text = Value::Object(Model::valid().config).to_string();
    folder.put("config.json", text.replacen('{', r#"{"rope_theta":1e999,"#, 1));
    assert_says(&folder.error(), &["config.json", "number out of range"]);
}

#[test]
fn sizes_of_the_wrong_type_or_range() {
    for key in SIZES {
        for value in [
            json!("8"),
            json!(8.5),
            json!(-8),
            json!(0),
            json!([8]),
            json!({}),
            json!(true),
            json!(u64::MAX),
            json!(1u64 << 63),
            json!(1u64 << 40),
        ] {
            assert_says(&error_with(key, value.clone()), &[key, &value.to_string()]);
        }
    }
}

#[test]
fn required_keys_that_are_absent() {
    for key in [
        "model_type",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    ] {
        let mut model = Model::valid();
        model.config.remove(key);
        assert_says(&model.error(), &[key, "absent"]);
        assert_says(&error_with(key, Value::Null), &[key, "absent"]);
    }
}

/// The largest number that is taken: layers are listed one by one.
fn largest(key: &str) -> u64 {
    match key {
        "num_hidden_layers" => 1 << 14,
        _ => 1 << 20,
    }
}

#[test]
fn more_layers_than_any_model_has() {
    for number in [(1 << 14) + 1, 1 << 20] {
        let error = error_with("num_hidden_layers", json!(number));
        assert_says(&error, &["num_hidden_layers", "from 1 to 16384"]);
    }
}

#[test]
fn huge_but_allowed_numbers_end_at_the_first_tensor_that_is_not_there() {
    // Millions of heads and dimensions: neither an overflow nor a list of millions of tensors.
    for key in SIZES.iter().filter(|key| **key != "max_position_embeddings") {
        let mut model = Model::valid();
        model.config.insert((*key).into(), json!(largest(key)));
        if *key == "num_key_value_heads" {
            model.config.insert("num_attention_heads".into(), json!(1 << 20));
            model.config.insert("head_dim".into(), json!(1 << 20));
        }
        assert!(
            model.error().contains("tensor") || model.error().contains("head_dim"),
            "{key}: {}",
            model.error()
        );
    }
}

#[test]
fn every_size_huge_at_once() {
    let mut model = Model::valid();
    for key in SIZES {
        model.config.insert((*key).into(), json!(largest(key)));
    }
    assert_says(
        &model.error(),
        &["model.embed_tokens.weight", "[1048576, 1048576]", "[16, 8]"],
    );
}

#[test]
fn heads_that_do_not_divide() {
    assert_says(
        &error_with("num_key_value_heads", json!(3)),
        &["num_key_value_heads", "does not divide"],
    );
    assert_says(&error_with("num_attention_heads", json!(3)), &["does not divide"]);
    assert_says(&error_with("head_dim", json!(3)), &["head_dim", "even"]);
}

#[test]
fn numbers_and_flags_of_the_wrong_type() {
    for (key, value) in [
        ("rms_norm_eps", json!("1e-5")),
        ("rms_norm_eps", json!(0)),
        ("rms_norm_eps", json!(-1e-5)),
        ("rope_theta", json!("10000")),
        ("rope_theta", json!(-1)),
        ("rope_theta", json!(1e-300)),
        ("tie_word_embeddings", json!("yes")),
        ("attention_bias", json!(1)),
        ("model_type", json!(5)),
        ("rope_scaling", json!("linear")),
        ("rope_parameters", json!([1])),
    ] {
        assert_says(&error_with(key, value), &[key]);
    }
}

#[test]
fn latent_shapes_of_the_wrong_range() {
    for (key, value) in [
        ("kv_lora_rank", json!(0)),
        ("kv_lora_rank", json!(1u64 << 40)),
        ("kv_lora_rank", Value::Null),
        ("qk_rope_head_dim", json!(3)),
        ("qk_nope_head_dim", json!(-4)),
        ("v_head_dim", json!("4")),
        ("q_lora_rank", json!(0)),
    ] {
        let mut model = Model::valid();
        for (key, value) in [
            ("model_type", json!("llamamla")),
            ("kv_lora_rank", json!(4)),
            ("qk_nope_head_dim", json!(4)),
            ("qk_rope_head_dim", json!(2)),
            ("v_head_dim", json!(4)),
        ] {
            model.config.insert(key.into(), value);
        }
        // Without the change the configuration is fine and its tensors are missing.
        assert_says(&model.error(), &["self_attn"]);
        model.config.insert(key.into(), value);
        assert_says(&model.error(), &["config.json", key]);
    }
}

#[test]
fn experts_are_refused_by_name() {
    let mut model = Model::valid();
    for (key, value) in [
        ("model_type", json!("deepseek_v3")),
        ("first_k_dense_replace", json!(0)),
    ] {
        model.config.insert(key.into(), value);
    }
    assert_says(&model.error(), &["unsupported", "experts"]);
}
