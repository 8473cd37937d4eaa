//! Families that add nothing, biases apart.

use proptest::prelude::*;
use transmla_convert::{ConvertError, FreqFold, Plan, RECIPE_FIELDS, Recipe, Style};
use transmla_core::ModelConfig;

use crate::common::write_random_model;
use crate::conversion::{distances, family, full_rank};

/// With r = all, the low-rank step loses nothing, biases and low-rank queries included.
#[test]
fn full_rank_equals_the_decoupled_model() {
    for name in ["llama2-mha", "qwen2.5", "mistral"] {
        let folder = family(name);
        let head_dim = ModelConfig::read(&folder).unwrap().grouped().unwrap().head_dim;
        for (rope_dim, freqfold, low_rank_queries) in [(head_dim, 1, false), (head_dim / 2, 4, true)] {
            let options = full_rank(&folder, rope_dim, freqfold, low_rank_queries);
            let (from_decoupled, _) = distances(&folder, &options);
            let worst = from_decoupled.max_logit_difference;
            assert!(worst < 5e-4, "{name}, d_r {rope_dim}: {worst}");
        }
    }
}

/// The stock form with its identity norms and its own epsilon is the same function.
#[test]
fn stock_form_equals_the_decoupled_model() {
    for name in ["llama2-mha", "mistral"] {
        for low_rank_queries in [false, true] {
            let folder = family(name);
            let head_dim = ModelConfig::read(&folder).unwrap().grouped().unwrap().head_dim;
            let options = Recipe {
                style: Style::DeepseekV3,
                ..full_rank(&folder, head_dim, 2, low_rank_queries)
            };
            let (from_decoupled, _) = distances(&folder, &options);
            let worst = from_decoupled.max_logit_difference;
            assert!(worst < 5e-4, "{name}: {worst}");
        }
    }
}

/// With one key head and d_r = d nothing has to be decoupled: the original itself comes out.
#[test]
fn one_key_head_at_full_rank_equals_the_original() {
    for bias in [false, true] {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("one");
        write_random_model(&folder, 1, bias, !bias);
        let (_, from_original) = distances(&folder, &full_rank(&folder, 8, 1, bias));
        let worst = from_original.max_logit_difference;
        assert!(worst < 5e-4, "bias {bias}: {worst}");
        let options = Recipe {
            style: Style::DeepseekV3,
            ..full_rank(&folder, 8, 1, true)
        };
        assert!(distances(&folder, &options).1.max_logit_difference < 5e-4);
    }
}

/// The comparison above would notice a difference: half the rank is not the same function.
#[test]
fn a_cut_model_differs() {
    let folder = family("mistral");
    let head_dim = ModelConfig::read(&folder).unwrap().grouped().unwrap().head_dim;
    let mut options = full_rank(&folder, head_dim, 1, false);
    options.kv_lora_rank = options.kv_lora_rank.map(|rank| rank / 2);
    assert!(distances(&folder, &options).0.max_logit_difference > 1e-2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked for, a plan either fits or says which option does not and what would.
    #[test]
    fn plans_fit_or_explain(
        rope_dim in 0usize..40, rank in 0usize..400, q_rank in prop::option::of(0usize..400),
        fold in 0usize..20, collapse in prop::option::of(0usize..5),
    ) {
        let config = ModelConfig::read(&family("mistral")).unwrap();
        let options = Recipe {
            qk_mqa_dim: Some(rope_dim),
            kv_lora_rank: Some(rank),
            q_lora_rank: q_rank,
            collapse,
            freqfold: if fold == 0 { FreqFold::Auto } else { FreqFold::Fixed(fold) },
            ..Recipe::default()
        };
        match Plan::new(&config, &options) {
            Ok(plan) => {
                let (before, after) = plan.cache_numbers();
                prop_assert_eq!(after, rank + rope_dim);
                prop_assert!(after <= before);
                prop_assert!(!plan.freqfolds().is_empty());
            }
            Err(ConvertError::Option(hint)) => {
                let names = RECIPE_FIELDS.contains(&hint.field) && !hint.found.is_empty();
                prop_assert!(names && !hint.allowed.is_empty() && !hint.suggestion.is_empty(), "{hint}");
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
