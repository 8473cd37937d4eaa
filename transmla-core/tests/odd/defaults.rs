//! The defaults of the family table against those of transformers' configuration classes (defaults.json).

use serde_json::{Value, json};
use transmla_core::config::{BiasRule, FAMILIES, FeedForward, Multipliers, RopeRule, SoftCaps, WindowRule};

use crate::fixture::read_json;

/// Keys of factors, each 1 where it is left out.
const MULTIPLIERS: [&str; 4] = [
    "embedding_multiplier",
    "attention_multiplier",
    "residual_multiplier",
    "logits_scaling",
];

#[test]
fn the_table_has_the_defaults_of_the_classes() {
    let recorded = read_json("defaults.json");
    for family in FAMILIES {
        let expected = &recorded[family.model_type];
        let defaults = &family.defaults;
        let windows = family.window != WindowRule::Never;
        let switched = matches!(family.window, WindowRule::Switched | WindowRule::SwitchedAlternate);
        let mut pairs = vec![
            ("vocab_size", json!(defaults.vocab_size)),
            ("hidden_size", json!(defaults.hidden_size)),
            ("intermediate_size", json!(defaults.intermediate_size)),
            ("num_hidden_layers", json!(defaults.num_hidden_layers)),
            ("num_attention_heads", json!(defaults.num_attention_heads)),
            ("num_key_value_heads", json!(defaults.num_key_value_heads)),
            ("max_position_embeddings", json!(defaults.max_position_embeddings)),
            ("rms_norm_eps", json!(defaults.rms_norm_eps)),
            ("rope_theta", json!(defaults.rope_theta)),
            ("bos_token_id", json!(defaults.bos_token_id)),
            ("eos_token_id", json!(defaults.eos_token_id)),
            ("tie_word_embeddings", json!(family.tied_by_default)),
            (family.activation_keys[0], json!(family.default_activation)),
        ];
        if family.multipliers == Multipliers::Keys {
            pairs.extend(MULTIPLIERS.map(|key| (key, json!(1.0))));
        }
        if family.bias == BiasRule::QkvBiasKey {
            pairs.push(("qkv_bias", json!(true)));
        }
        if expected.get("head_dim").is_some() {
            pairs.push(("head_dim", json!(defaults.head_dim)));
        }
        if family.rope == RopeRule::ByWindow {
            pairs.push(("rope_local_base_freq", json!(defaults.local_rope_theta)));
        }
        if windows {
            pairs.push(("sliding_window", json!(defaults.sliding_window)));
        }
        if switched {
            pairs.push(("max_window_layers", json!(defaults.max_window_layers)));
        }
        if let FeedForward::Experts(rule) = family.feed_forward {
            let count = if rule.by_keys {
                "num_experts"
            } else {
                "num_local_experts"
            };
            pairs.push((count, json!(defaults.num_local_experts)));
            pairs.push(("num_experts_per_tok", json!(defaults.num_experts_per_tok)));
            if rule.shared {
                let width = defaults.shared_expert_intermediate_size;
                pairs.push(("shared_expert_intermediate_size", json!(width)));
            }
            if rule.by_keys {
                pairs.push(("moe_intermediate_size", json!(defaults.moe_intermediate_size)));
                pairs.push(("norm_topk_prob", json!(false)));
            }
        }
        if family.soft_caps != SoftCaps::Never {
            pairs.push(("query_pre_attn_scalar", json!(defaults.query_pre_attn_scalar)));
            pairs.push(("attn_logit_softcapping", json!(defaults.attn_logit_softcapping)));
            pairs.push(("final_logit_softcapping", json!(defaults.final_logit_softcapping)));
        }
        for (key, ours) in pairs {
            assert!(
                same(&expected[key], &ours),
                "{}: {key}: {ours}, the class has {}",
                family.model_type,
                expected[key]
            );
        }
        assert_eq!(
            family.multipliers == Multipliers::Keys,
            MULTIPLIERS.iter().any(|key| expected.get(*key).is_some()),
            "{}",
            family.model_type
        );
        // Nothing that the class knows of is left to another family's default.
        assert_eq!(
            windows,
            expected.get("sliding_window").is_some(),
            "{}",
            family.model_type
        );
        assert_eq!(
            switched,
            expected.get("max_window_layers").is_some(),
            "{}",
            family.model_type
        );
    }
}

/// Equal, whether or not a number has a point.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
