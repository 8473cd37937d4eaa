//! Scaled RoPE: frequencies and attention factors as transformers has them.

use serde_json::{Value, json};
use transmla_checkpoint::ModelConfig;
use transmla_checkpoint::config::RopeConfig;

fn rope(head_dim: usize, changes: &Value) -> RopeConfig {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 1,
        "num_attention_heads": 4, "head_dim": head_dim, "vocab_size": 512,
    });
    let raw = config.as_object_mut().unwrap();
    raw.extend(changes.as_object().unwrap().clone());
    *ModelConfig::from_json(raw.clone()).unwrap().rope.of(0)
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

/// Worked out from the paper's equations, by another program.
#[test]
fn yarn() {
    let scaling = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let rope = rope(16, &json!({"rope_theta": 1e4, "rope_scaling": scaling}));
    let expected = [1.0, 0.23717082451262847, 0.05, 0.007905694150420948, 0.0025];
    let found = rope.frequencies();
    expected.iter().zip(&found).for_each(|(e, f)| near(*f, *e));
    near(rope.attention_factor(), 1.138629436111989);
    // Rotated vectors are longer by the factor, at every position.
    let (cos, sin) = rope.angles(5..6);
    assert!((f64::from(cos[1].hypot(sin[1])) - 1.138629436111989).abs() < 1e-6);
}

/// The form that Qwen2.5 prescribes for long texts.
#[test]
fn yarn_of_a_real_size() {
    let scaling = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    let rope = rope(128, &json!({"rope_parameters": scaling, "rope_theta": 1e6}));
    let found = rope.frequencies();
    for (j, expected) in [
        (0, 1.0),
        (23, 0.006978305848598663),
        (30, 0.0010643609812470017),
        (40, 4.445698525097307e-05),
        (63, 3.102344401879299e-07),
    ] {
        near(found[j], expected);
    }
}

#[test]
fn an_attention_factor_may_be_given_in_several_ways() {
    let factor = |more: &Value| {
        let mut scaling = json!({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096});
        scaling
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        rope(64, &json!({"rope_scaling": scaling})).attention_factor()
    };
    near(factor(&json!({})), 0.1 * 40f64.ln() + 1.0);
    near(factor(&json!({"attention_factor": 1.5})), 1.5);
    near(factor(&json!({"mscale": 1.0, "mscale_all_dim": 1.0})), 1.0);
    near(
        factor(&json!({"mscale": 0.5, "mscale_all_dim": 1.0})),
        (0.05 * 40f64.ln() + 1.0) / (0.1 * 40f64.ln() + 1.0),
    );
}

#[test]
fn linear_divides_positions() {
    let plain = rope(16, &json!({})).frequencies();
    let scaled = rope(16, &json!({"rope_scaling": {"type": "linear", "factor": 8.0}})).frequencies();
    plain.iter().zip(&scaled).for_each(|(p, s)| near(*s, p / 8.0));
}

/// Both spellings of the same scaling, and slots that are every other frequency.
#[test]
fn llama3() {
    let scaling = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
    });
    let old = rope(64, &json!({"rope_scaling": scaling, "rope_theta": 500000.0}));
    let new = rope(64, &json!({"rope_parameters": scaling}));
    assert_eq!(old, new);
    let found = old.frequencies();
    assert_eq!(found[3], 500000f64.powf(-6.0 / 64.0));
    near(found[31], 500000f64.powf(-62.0 / 64.0) / 32.0);
    let slots = RopeConfig {
        dim: 32,
        rotated: 32,
        ..old
    }
    .frequencies();
    slots.iter().enumerate().for_each(|(m, slot)| near(*slot, found[2 * m]));
}
