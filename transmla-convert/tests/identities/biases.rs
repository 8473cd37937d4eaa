//! Biases in the stock form: what a family's own class computes, from tensors that transformers' DeepSeek class has.

use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::json;
use transmla_convert::{FreqFold, MethodName, Recipe, Style, WithoutLatentNorms};
use transmla_core::config::{LatentStyle, TRANSFORMERS_ARCHITECTURE};
use transmla_core::{Checkpoint, Decoder, Residency, StorageDtype};

use crate::common::write_random_variant;
use crate::conversion::{Outcome, compare, family, full_rank, run};

fn open(outcome: &Outcome) -> Decoder {
    Decoder::open(&outcome.saved(), &Device::flex(), Residency::Loaded).unwrap()
}

/// The largest logit difference of the two forms of one conversion.
fn between_forms(folder: &std::path::Path, options: &Recipe) -> f64 {
    let with = |style| {
        let options = Recipe {
            style,
            ..options.clone()
        };
        run(folder, &options)
    };
    let (stock, own) = (with(Style::Auto), with(Style::Family));
    assert_eq!(
        (stock.plan.style(), own.plan.style()),
        (LatentStyle::DeepseekV3, LatentStyle::Family)
    );
    // What the stock form's norms change is a matter of its own (`formats`).
    compare(&open(&own), &WithoutLatentNorms(&open(&stock))).max_logit_difference
}

/// Whatever is cut away: biases are exact in the stock form, so both forms are the same function.
#[test]
fn stock_form_equals_the_family_form() {
    for name in ["qwen2.5", "mimo"] {
        let folder = family(name);
        for method in [MethodName::Transmla, MethodName::Coherent] {
            for low_rank_queries in [false, true] {
                let full = full_rank(&folder, 8, 4, low_rank_queries);
                let options = Recipe {
                    method,
                    kv_lora_rank: full.kv_lora_rank.map(|rank| rank / 2),
                    q_lora_rank: full.q_lora_rank.map(|rank| rank / 2),
                    ..full
                };
                let worst = between_forms(&folder, &options);
                assert!(
                    worst < 5e-4,
                    "{name}, {method:?}, low-rank queries {low_rank_queries}: {worst}"
                );
            }
        }
    }
}

/// Refinement changes biases like everything else, and they stay where stock code has them.
#[test]
fn refined_biases_are_the_same_in_both_forms() {
    let folder = family("qwen2.5");
    let options = Recipe {
        method: MethodName::Coherent,
        refine: Some(3),
        kv_lora_rank: Some(24),
        ..full_rank(&folder, 8, 4, false)
    };
    let worst = between_forms(&folder, &options);
    assert!(worst < 5e-4, "{worst}");
}

/// Stock DeepSeek classes have biases on these projections and on no others; o_proj's is needed even where it is zero.
#[test]
fn biases_are_where_stock_code_has_them() {
    let folder = family("qwen2.5");
    for low_rank_queries in [false, true] {
        let outcome = run(&folder, &full_rank(&folder, 8, 4, low_rank_queries));
        let config = outcome.config();
        assert_eq!(
            config.raw.json("/architectures"),
            Some(json!([TRANSFORMERS_ARCHITECTURE]).to_string())
        );
        assert_eq!(config.raw.json("/attention_bias").as_deref(), Some("true"));
        // hidden 96, or a query latent as wide as the queries, 96 too, and the constant entry.
        assert_eq!(config.raw.integer("/q_lora_rank"), Some(104));
        let checkpoint = Checkpoint::open(&outcome.saved()).unwrap();
        let biases = checkpoint.names().filter(|name| name.ends_with(".bias"));
        let mut found: Vec<&str> = biases
            .filter_map(|name| name.strip_prefix("model.layers.0.self_attn."))
            .collect();
        found.sort_unstable();
        assert_eq!(found, ["kv_a_proj_with_mqa.bias", "o_proj.bias", "q_a_proj.bias"]);
        let output = checkpoint
            .values("model.layers.0.self_attn.o_proj.bias", &[96])
            .unwrap();
        assert!(output.iter().all(|value| *value == 0.0));
    }
}

/// Half precision has no small numbers: the constant entry must survive it.
#[test]
fn half_precision_keeps_biases() {
    let folder = family("qwen2.5");
    let with = |style| {
        let options = Recipe {
            style,
            dtype: StorageDtype::F16,
            ..full_rank(&folder, 16, 1, false)
        };
        run(&folder, &options)
    };
    let (stock, own) = (with(Style::Auto), with(Style::Family));
    let worst = compare(&open(&own), &open(&stock)).max_logit_difference;
    // An error of 0.1 % of a latent is allowed where it cannot be had for nothing.
    assert!(worst < 2e-2, "{worst}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Any shapes and ranks: the stock form of a model with every bias is the family's own.
    #[test]
    fn forms_agree_at_any_shape(
        pairs in 1usize..5, groups in 1usize..4, shared in 1usize..4, hidden in 9usize..40, rope in 0usize..3,
        rank in 1usize..100, q_rank in prop::option::of(1usize..100), output in any::<bool>(), tied in any::<bool>(),
    ) {
        let head_dim = 2 * pairs;
        let widths: Vec<usize> = (1..=pairs).filter(|half| pairs.is_multiple_of(*half)).map(|half| 2 * half).collect();
        let rope_dim = widths[rope % widths.len()];
        let (key_width, queries) = (groups * head_dim, groups * shared * head_dim);
        let changes = json!({
            "model_type": if output { "llama" } else { "qwen2" }, "attention_bias": true, "hidden_size": hidden,
            "head_dim": head_dim, "num_key_value_heads": groups, "num_attention_heads": groups * shared,
            "tie_word_embeddings": tied,
        });
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("random");
        write_random_variant(&folder, &changes);
        let options = Recipe {
            method: MethodName::Transmla,
            refine: Some(0),
            qk_mqa_dim: Some(rope_dim),
            freqfold: FreqFold::Fixed(head_dim / rope_dim),
            kv_lora_rank: Some(1 + rank % (2 * key_width - rope_dim)),
            q_lora_rank: q_rank.map(|rank| 1 + rank % queries),
            dtype: StorageDtype::F32,
            ..Recipe::default()
        };
        let worst = between_forms(&folder, &options);
        prop_assert!(worst < 5e-4, "{options:?}: {worst}");
    }
}
