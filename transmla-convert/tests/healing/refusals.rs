//! What cannot be healed is refused before any work.

use serde_json::json;
use transmla_convert::{ConvertError, HealRequest, Healing, Recipe, Silent, Words, heal};
use transmla_core::TokenBatch;

use crate::common::{change_tensor, write_random_variant};
use crate::setting::{Setting, few_steps, open};

fn setting() -> Setting {
    let recipe = Recipe {
        qk_mqa_dim: Some(4),
        kv_lora_rank: Some(10),
        ..Recipe::default()
    };
    Setting::of(
        |folder| write_random_variant(folder, &json!({"num_key_value_heads": 3})),
        &recipe,
    )
}

fn problem(setting: &Setting, [converted, original]: [&str; 2], text: &TokenBatch, healing: &Healing) -> ConvertError {
    let (converted, original) = (open(&setting.path(converted)), open(&setting.path(original)));
    let save_path = setting.path("out");
    let request = HealRequest {
        converted: &converted,
        original: &original,
        text,
        healing,
        save_path: &save_path,
        replace: false,
        words: Words {
            original: "x",
            text: "y",
        },
        extra_files: &[],
    };
    let error = heal(&request, &mut Silent).unwrap_err();
    assert!(!save_path.exists() && !setting.path(".out.layers").exists());
    error
}

#[test]
fn pairs_must_fit() {
    let setting = setting();
    write_random_variant(&setting.path("more words"), &json!({"vocab_size": 51}));
    write_random_variant(&setting.path("more layers"), &json!({"num_hidden_layers": 3}));
    write_random_variant(&setting.path("another"), &json!({}));
    change_tensor(&setting.path("another"), "embed_tokens.weight", |value| {
        value * value - 0.1
    });
    let said = |pair| problem(&setting, pair, &setting.text, &few_steps(1)).to_string();
    for (pair, words) in [
        (
            ["converted", "more words"],
            "50 tokens in its vocabulary, the original 51",
        ),
        (["converted", "more layers"], "2 layers, the original 3"),
        (["converted", "another"], "embeddings are not those"),
        (["original", "original"], "no latent attention"),
        (["converted", "converted"], "already has latent attention"),
    ] {
        let said = said(pair);
        assert!(said.contains(words), "{pair:?}: {said}");
    }
}

#[test]
fn text_and_options_must_do() {
    let setting = setting();
    let pair = ["converted", "original"];
    let one = setting.text.rows(0..1).unwrap();
    let said = problem(&setting, pair, &one, &few_steps(1)).to_string();
    assert!(said.contains("at least 2"), "{said}");
    let nothing = Healing {
        kl_weight: 0.0,
        ..few_steps(1)
    };
    let said = problem(&setting, pair, &setting.text, &nothing).to_string();
    assert!(said.contains("nothing to learn from"), "{said}");
}

#[test]
fn what_is_there_stays() {
    let setting = setting();
    std::fs::create_dir(setting.path("healed")).unwrap();
    std::fs::write(setting.path("healed/notes"), "mine").unwrap();
    let error = setting.heal_with(&few_steps(1), "healed", &mut Silent).unwrap_err();
    assert!(matches!(error, ConvertError::NotOurs { .. }), "{error}");
    assert_eq!(std::fs::read(setting.path("healed/notes")).unwrap(), b"mine");
}
