//! Whatever form a model was written in is the form that it is trained in and written in again.

use serde_json::{Value, json};
use transmla_convert::{Healing, KeyNorm, Recipe, Style, Trained, check_saved};
use transmla_core::{Decoder, LayeredModel, ModelConfig, StorageDtype};

use crate::common::write_random_variant;
use crate::setting::{Setting, few_steps, open, stored};

/// Small originals of all kinds, with what is chosen for their conversion.
fn settings() -> Vec<(&'static str, Value, Recipe)> {
    let base = Recipe {
        qk_mqa_dim: Some(4),
        kv_lora_rank: Some(10),
        dtype: StorageDtype::F32,
        ..Recipe::default()
    };
    let family = Recipe {
        style: Style::Family,
        ..base.clone()
    };
    let half = Recipe {
        dtype: StorageDtype::F16,
        q_lora_rank: Some(12),
        ..base.clone()
    };
    let exact = Recipe {
        key_norm: Some(KeyNorm::Exact),
        ..base.clone()
    };
    let fitted = Recipe {
        key_norm: Some(KeyNorm::Regression),
        ..base.clone()
    };
    let norms = Recipe {
        use_qkv_norm: true,
        ..base.clone()
    };
    let qwen3 = json!({"model_type": "qwen3", "num_key_value_heads": 3});
    let olmo2 = json!({"model_type": "olmo2", "num_key_value_heads": 3});
    let gemma = json!({
        "model_type": "gemma2", "query_pre_attn_scalar": 20, "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0, "sliding_window": 9, "num_key_value_heads": 3,
    });
    let biases = json!({"model_type": "qwen2", "num_key_value_heads": 3, "tie_word_embeddings": true});
    let queries = Recipe {
        q_lora_rank: Some(12),
        ..base.clone()
    };
    vec![
        ("stock", json!({"num_key_value_heads": 3}), base.clone()),
        ("stock in half precision", json!({"num_key_value_heads": 3}), half),
        ("stock with norms", json!({"num_key_value_heads": 3}), norms),
        ("stock with biases", biases.clone(), queries),
        ("biases", biases, family.clone()),
        ("normalised keys, fitted", qwen3.clone(), fitted.clone()),
        ("normalised keys, exact", qwen3, exact.clone()),
        ("norms behind and of all heads, fitted", olmo2.clone(), fitted),
        ("norms behind and of all heads, exact", olmo2, exact.clone()),
        ("windows and soft-caps", gemma, base.clone()),
        (
            "experts",
            json!({"model_type": "mixtral", "num_local_experts": 3, "num_key_value_heads": 3}),
            family.clone(),
        ),
        (
            "experts in one of two layers",
            json!({
                "model_type": "qwen3_moe", "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
                "mlp_only_layers": [0], "num_key_value_heads": 3,
            }),
            exact.clone(),
        ),
        (
            "experts with a shared one",
            json!({
                "model_type": "qwen2_moe", "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12,
                "shared_expert_intermediate_size": 20, "num_key_value_heads": 3,
            }),
            family.clone(),
        ),
        (
            "factors",
            json!({
                "model_type": "granite", "num_key_value_heads": 3, "embedding_multiplier": 6.0, "attention_multiplier": 0.3,
                "residual_multiplier": 0.25, "logits_scaling": 4.0,
            }),
            family,
        ),
    ]
}

/// With a learning rate of 0 nothing moves: every tensor is the same to the bit, and so are all files that say what it is.
#[test]
fn a_rate_of_0_writes_the_same_model() {
    for (name, changes, recipe) in settings() {
        let setting = Setting::of(|folder| write_random_variant(folder, &changes), &recipe);
        for train in [Trained::Attention, Trained::All, Trained::Lora] {
            let healing = Healing {
                learning_rate: 0.0,
                train,
                ..few_steps(2)
            };
            let report = setting.heal(&healing, "healed");
            assert_eq!(report.kept, 0, "{name}");
            let (before, after) = (setting.weights("converted"), setting.weights("healed"));
            assert_eq!(
                before.names().collect::<Vec<_>>(),
                after.names().collect::<Vec<_>>(),
                "{name}"
            );
            for tensor in before.names() {
                assert_eq!(
                    stored(&before, tensor),
                    stored(&after, tensor),
                    "{name}: {tensor}, {train:?}"
                );
            }
            let config = |folder: &str| std::fs::read(setting.path(folder).join("config.json")).unwrap();
            assert_eq!(config("converted"), config("healed"), "{name}");
        }
    }
}

/// What is trained moves, norms and everything else stay, the loss falls, and the files are as sound as before.
#[test]
fn every_form_is_healed() {
    for (name, changes, recipe) in settings() {
        let setting = Setting::of(|folder| write_random_variant(folder, &changes), &recipe);
        let all = [Trained::Attention, Trained::All, Trained::Lora];
        for train in all {
            // On the text that it is measured on: random words teach nothing about others.
            let healing = Healing {
                train,
                lora_rank: 4,
                learning_rate: 0.02,
                ..few_steps(8)
            };
            let report = setting.heal(&healing, "healed");
            let (before, after) = (setting.weights("converted"), setting.weights("healed"));
            for tensor in before.names() {
                let is_trained = is_trained(tensor, train);
                let same = stored(&before, tensor) == stored(&after, tensor);
                assert!(is_trained || same, "{name}: {tensor} has moved, {train:?}");
                if report.kept > 0 && is_trained && tensor.ends_with("o_proj.weight") {
                    assert!(!same, "{name}: {tensor} has not moved, {train:?}");
                }
            }
            assert!(report.written.kl.is_finite(), "{name}");
            let kept = report
                .checks
                .iter()
                .map(|check| check.distance.kl)
                .fold(f64::INFINITY, f64::min);
            let rounding = if recipe.dtype == StorageDtype::F32 { 1e-5 } else { 1e-2 };
            assert!(
                (report.written.kl - kept).abs() < rounding * (1.0 + kept),
                "{name}, {train:?}: {} was kept, {} written",
                kept,
                report.written.kl
            );
            let folder = setting.path("healed");
            let (_, checks) = check_saved(&folder, &ModelConfig::read(&folder).unwrap()).unwrap();
            let wrong: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
            let (_, before) =
                check_saved(&setting.path("converted"), open(&setting.path("converted")).config()).unwrap();
            assert_eq!(
                wrong.len(),
                before.iter().filter(|check| !check.passed).count(),
                "{name}: {wrong:?}"
            );
        }
    }
}

fn is_trained(tensor: &str, train: Trained) -> bool {
    let is_norm = tensor.contains("norm");
    let attention = tensor.contains(".self_attn.") && !is_norm;
    match train {
        Trained::Attention | Trained::Lora => attention,
        Trained::All => attention || tensor.contains(".mlp.") || tensor.contains(".block_sparse_moe."),
    }
}

/// The slope of the loss along the first step is what its gradient says, whatever the form: the loss on the text of the step falls.
#[test]
fn the_loss_on_seen_text_falls() {
    struct Losses(Vec<f64>);
    impl transmla_convert::Observer for Losses {
        fn begin(&mut self, _: transmla_convert::Stage) {}
        fn advance(&mut self, _: u64, _: u64) {}
        fn end(&mut self, _: transmla_convert::Stage, _: Option<f64>) {}
        fn heal_step(&mut self, step: &transmla_convert::HealStep) {
            assert!(step.gradient > 0.0);
            self.0.push(step.distance.kl);
        }
    }
    for (name, changes, recipe) in settings() {
        let setting = Setting::of(|folder| write_random_variant(folder, &changes), &recipe);
        let mut losses = Losses(Vec::new());
        // All of the text in every step.
        let healing = Healing {
            batch_size: 6,
            micro_batch: 3,
            held_out: 0.25,
            learning_rate: 0.02,
            warmup: 0.0,
            ..few_steps(30)
        };
        setting.heal_with(&healing, "healed", &mut losses).unwrap();
        let (first, last) = (losses.0[0], losses.0[29]);
        assert!(last < 0.9 * first, "{name}: {first} {last}");
        let _: Decoder = open(&setting.path("healed"));
    }
}
