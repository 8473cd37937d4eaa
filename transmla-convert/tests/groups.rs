//! Heads in groups with a latent each (GLA), and latents that are values and keys as they are (GTA).

use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};
use transmla_convert::{Engine, MethodName, Plan, Recipe, Silent, Style, convert, group_source, shapes_for_budget};
use transmla_core::{AttentionConfig, Decoder, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch};
use transmla_eval::{EvalOptions, divergence};

mod common;
mod stories;

const HEADS: usize = 4;
const WIDTH: usize = 8;

/// Of 4 key heads and twice as many query heads.
fn model(folder: &Path, changes: &Value) {
    let mut all = json!({"num_attention_heads": 2 * HEADS, "num_key_value_heads": HEADS});
    all.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    common::write_random_variant(folder, &all);
}

fn recipe(groups: usize, tied: bool, rope: usize, rank: usize) -> Recipe {
    Recipe {
        latent_groups: Some(groups),
        tied,
        refine: Some(0),
        qk_mqa_dim: Some(rope),
        kv_lora_rank: Some(rank),
        dtype: StorageDtype::F32,
        ..Recipe::default()
    }
}

fn text() -> TokenBatch {
    TokenBatch::from_ids((0..400).map(|i| (i * i + 3 * i) % 50).collect(), 8, 50).unwrap()
}

/// Largest difference of the logits after a conversion, and the model.
fn distance(folder: &Path, recipe: &Recipe) -> (f64, Decoder) {
    let open = |folder: &Path| Decoder::open(folder, &Device::flex(), Residency::Loaded).unwrap();
    let (source, text, target) = (open(folder), text(), folder.with_extension("mla"));
    let plan = Plan::new(source.config(), recipe).unwrap();
    convert(&common::request(&plan, &source, &text, &target), &mut Silent).unwrap();
    let converted = open(&target);
    let worst = divergence(
        &source,
        &converted,
        &text,
        &EvalOptions::default(),
        &mut transmla_eval::Silent,
    )
    .unwrap();
    (worst.max_logit_difference, converted)
}

/// A group of one key head with d_r = d and r = d loses nothing, tied or not, with biases and with a query latent of full rank.
#[test]
fn a_group_for_each_key_head_at_full_rank_is_exact() {
    let llama = json!({});
    let qwen = json!({"model_type": "qwen2"});
    // Factors of the residual stream and of scores, and layers with a window.
    let granite = json!({
        "model_type": "granite", "residual_multiplier": 0.4, "attention_multiplier": 0.3, "logits_scaling": 2.0,
    });
    let mistral = json!({"model_type": "mistral", "sliding_window": 9});
    for (name, changes) in [
        ("llama", llama),
        ("qwen", qwen),
        ("granite", granite),
        ("mistral", mistral),
    ] {
        for tied in [false, true] {
            for q_lora_rank in [None, Some(24)] {
                let models = tempfile::tempdir().unwrap();
                let folder = models.path().join("model");
                model(&folder, &changes);
                let recipe = Recipe {
                    q_lora_rank,
                    ..recipe(HEADS, tied, WIDTH, WIDTH)
                };
                let (worst, converted) = distance(&folder, &recipe);
                assert!(worst < 5e-4, "{name}, tied {tied}, {q_lora_rank:?}: {worst}");
                assert_eq!(
                    converted
                        .checkpoint()
                        .contains("model.layers.0.self_attn.kv_b_proj.weight"),
                    !tied
                );
                assert_eq!(converted.config().attention.cache_numbers(), 2 * HEADS * WIDTH);
            }
        }
    }
}

/// Key heads 0 and 3 are one, and so are 1 and 2: together they fit into a latent of one head, and with others they do not.
#[test]
fn heads_that_are_alike_go_together() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("twins");
    model(&folder, &json!({}));
    common::rewrite(&folder, |name, values| {
        if name.contains(".k_proj.") || name.contains(".v_proj.") {
            let head = values.len() / HEADS;
            values.copy_within(..head, 3 * head);
            values.copy_within(head..2 * head, 2 * head);
        }
    });
    let (worst, _) = distance(&folder, &recipe(2, false, WIDTH, WIDTH));
    assert!(worst < 5e-4, "{worst}");
    // One latent that is as large as both.
    let (one, _) = distance_again(&folder, &recipe(1, false, WIDTH, WIDTH));
    assert!(one > 1e-2, "{one}");
}

fn distance_again(folder: &Path, recipe: &Recipe) -> (f64, Decoder) {
    std::fs::remove_dir_all(folder.with_extension("mla")).unwrap();
    distance(folder, recipe)
}

/// Two groups lose less than one of the same widths, and refinement trains them together.
#[test]
fn refinement_lowers_the_loss_of_groups() {
    for tied in [false, true] {
        let groups = |refine| Recipe {
            refine: Some(refine),
            ..recipe(2, tied, 4, 8)
        };
        let excess = |recipe: &Recipe| {
            let (report, folder) = stories::convert_stories(recipe, 16, 8);
            let saved = ModelConfig::read(&folder.path().join("mla")).unwrap();
            let groups = recipe.latent_groups.unwrap();
            assert_eq!(saved.attention.cache_numbers(), groups * 12);
            let held = [1, 2, 4].map(|devices| saved.attention.device_numbers(devices));
            assert_eq!(held, [groups * 12, 12, 12]);
            report.mla.unwrap().mean_nll - report.original.unwrap().mean_nll
        };
        let (closed, refined) = (excess(&groups(0)), excess(&groups(24)));
        assert!(refined < 0.9 * closed, "tied {tied}: {closed} {refined}");
        // A group has as much as all heads would have together.
        let one = excess(&recipe(1, false, 4, 8));
        assert!(closed < 0.9 * one, "tied {tied}: {closed} {one}");
    }
}

fn llama() -> ModelConfig {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("model");
    model(&folder, &json!({}));
    ModelConfig::read(&folder).unwrap()
}

/// One group is MLA, with the same recipe, configuration and tensors.
#[test]
fn one_group_is_nothing_new() {
    let plain = Recipe {
        latent_groups: None,
        ..recipe(1, false, 4, 12)
    };
    let [one, none] = [recipe(1, false, 4, 12), plain].map(|recipe| Plan::new(&llama(), &recipe).unwrap());
    assert_eq!(one.recipe(), none.recipe());
    assert_eq!(one.converted(), none.converted());
    assert_eq!(one.tensors(), none.tensors());
    assert!(!one.recipe().to_toml().unwrap().contains("tied"));
}

#[test]
fn widths_that_are_open_are_those_of_a_group() {
    let plan = |recipe: &Recipe| Plan::new(&llama(), recipe).unwrap();
    let open = |groups, tied| Recipe {
        latent_groups: groups,
        tied,
        ..Recipe::default()
    };
    let shapes = |recipe: &Recipe| {
        let plan = plan(recipe);
        let latent = plan.latent().clone();
        let widths = [
            latent.latent_groups,
            latent.qk_rope_head_dim,
            latent.kv_lora_rank,
            latent.qk_nope_head_dim,
        ];
        (widths, plan.cache_numbers().1)
    };
    // Half of the cache's 64 numbers, whatever the groups.
    assert_eq!(shapes(&open(Some(2), false)), ([2, 8, 8, 8], 32));
    assert_eq!(shapes(&open(Some(4), false)), ([4, 4, 4, 8], 32));
    // A latent as wide as a head, and a rotary key half as wide.
    assert_eq!(shapes(&open(None, true)), ([4, 4, 8, 8], 48));
    assert_eq!(shapes(&open(Some(2), true)), ([2, 4, 8, 8], 24));
    let one = group_source(&llama(), &open(Some(2), false)).unwrap();
    assert_eq!(shapes_for_budget(&one, 0.25, 0).unwrap(), (4, 4));
}

#[test]
fn what_has_no_groups_is_refused_by_reason() {
    let refused = |source: &ModelConfig, recipe: &Recipe| Plan::new(source, recipe).unwrap_err().to_string();
    let llama = llama();
    let two = recipe(2, false, 4, 8);
    let with = |change: &dyn Fn(&mut Recipe)| {
        let mut changed = two.clone();
        change(&mut changed);
        refused(&llama, &changed)
    };
    let error = refused(&llama, &recipe(3, false, 4, 8));
    assert!(error.contains("1, 2, 4 is possible; try latent_groups = 2"), "{error}");
    // A group's heads have 32 numbers, 4 of them the rotary key.
    let error = refused(&llama, &recipe(2, false, 4, 29));
    assert!(error.contains("of a group") && error.contains("1 to 28"), "{error}");
    let error = with(&|recipe| recipe.method = MethodName::Transmla);
    assert!(
        error.starts_with("method = transmla") && error.contains("coherent"),
        "{error}"
    );
    let error = with(&|recipe| recipe.use_qkv_norm = true);
    assert!(error.contains("use_qkv_norm"), "{error}");
    let error = with(&|recipe| recipe.style = Style::DeepseekV3);
    assert!(error.contains("one latent for all"), "{error}");
    for engine in [Engine::Vllm, Engine::Sglang, Engine::LlamaCpp, Engine::Mlx] {
        let error = with(&|recipe| recipe.engine = Some(engine));
        assert!(error.contains("latent"), "{engine}: {error}");
    }
    let plan = Plan::new(
        &llama,
        &Recipe {
            engine: Some(Engine::Transformers),
            ..two.clone()
        },
    )
    .unwrap();
    assert!(matches!(&plan.converted().attention, AttentionConfig::Latent(latent) if latent.latent_groups == 2));
    let raw = json!({
        "model_type": "qwen3", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "vocab_size": 50,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 8,
    });
    let qwen3 = ModelConfig::from_json(raw.as_object().unwrap().clone()).unwrap();
    assert!(refused(&qwen3, &two).contains("normalises"));
    let error = refused(
        &qwen3,
        &Recipe {
            tied: true,
            ..Recipe::default()
        },
    );
    assert!(error.contains("try tied = false"), "{error}");
}
