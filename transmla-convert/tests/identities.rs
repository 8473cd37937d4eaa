//! What must come out exactly: with nothing cut, a conversion keeps the function.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use proptest::prelude::*;
use transmla_convert::{ConvertOptions, DecoupledModel, FreqFold, Plan, Request, Silent, convert, decouple};
use transmla_core::config::LatentStyle;
use transmla_core::{Decoder, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch};
use transmla_eval::{Divergence, EvalOptions, divergence};

mod common;

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../transmla-core/tests/families")
        .join(name)
}

/// Token ids without meaning, but reproducible.
fn tokens(vocab_size: usize, batch: usize, sequence: usize) -> TokenBatch {
    let mut state = 12345u64;
    let ids = (0..batch * sequence).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((state >> 33) % vocab_size as u64) as i64
    });
    TokenBatch::from_ids(ids.collect(), batch, sequence).unwrap()
}

fn compare(first: &dyn LayeredModel, second: &dyn LayeredModel) -> Divergence {
    let text = tokens(first.config().vocab_size, 2, 48);
    divergence(first, second, &text, &EvalOptions::default(), &mut |_, _| {}).unwrap()
}

/// Converts a folder; gives the distance of the result from the decoupled model and from the original.
fn distances(folder: &Path, options: &ConvertOptions) -> (Divergence, Divergence) {
    let device = Device::flex();
    let source = Decoder::open(folder, &device, Residency::Loaded).unwrap();
    let plan = Plan::new(source.config(), options).unwrap();
    let calibration = tokens(source.config().vocab_size, 4, 32);
    let output = tempfile::tempdir().unwrap();
    let target = output.path().join("mla");
    let request = Request {
        plan: &plan,
        source: &source,
        calibration: &calibration,
        evaluation: None,
        target: &target,
        replace: false,
        extra_files: &[],
    };
    convert(&request, &mut Silent).unwrap();
    let converted = Decoder::open(&target, &device, Residency::Streamed).unwrap();
    let decoupled = decouple(&plan, &source, &calibration, &EvalOptions::default(), &mut Silent).unwrap();
    let decoupled = DecoupledModel::new(&source, &plan, &decoupled.rotations);
    (compare(&decoupled, &converted), compare(&source, &converted))
}

/// Everything at full rank: keys, values and, if asked for, queries.
fn full_rank(folder: &Path, rope_dim: usize, freqfold: usize, low_rank_queries: bool) -> ConvertOptions {
    let config = ModelConfig::read(folder).unwrap();
    let grouped = config.grouped().unwrap();
    ConvertOptions {
        qk_mqa_dim: rope_dim,
        freqfold: FreqFold::Fixed(freqfold),
        kv_lora_rank: 2 * grouped.key_width() - rope_dim,
        q_lora_rank: low_rank_queries.then_some(config.num_attention_heads * grouped.head_dim),
        dtype: StorageDtype::F32,
        max_shard_bytes: 100_000,
        ..ConvertOptions::default()
    }
}

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
            let options = ConvertOptions {
                style: LatentStyle::DeepseekV3,
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
        common::write_random_model(&folder, 1, bias, !bias);
        let (_, from_original) = distances(&folder, &full_rank(&folder, 8, 1, bias));
        let worst = from_original.max_logit_difference;
        assert!(worst < 5e-4, "bias {bias}: {worst}");
        if !bias {
            let options = ConvertOptions {
                style: LatentStyle::DeepseekV3,
                ..full_rank(&folder, 8, 1, true)
            };
            assert!(distances(&folder, &options).1.max_logit_difference < 5e-4);
        }
    }
}

/// The comparison above would notice a difference: half the rank is not the same function.
#[test]
fn a_cut_model_differs() {
    let folder = family("mistral");
    let head_dim = ModelConfig::read(&folder).unwrap().grouped().unwrap().head_dim;
    let mut options = full_rank(&folder, head_dim, 1, false);
    options.kv_lora_rank /= 2;
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
        let options = ConvertOptions {
            qk_mqa_dim: rope_dim,
            kv_lora_rank: rank,
            q_lora_rank: q_rank,
            collapse,
            freqfold: if fold == 0 { FreqFold::Auto } else { FreqFold::Fixed(fold) },
            ..ConvertOptions::default()
        };
        match Plan::new(&config, &options) {
            Ok(plan) => {
                let (before, after) = plan.cache_numbers();
                prop_assert_eq!(after, rank + rope_dim);
                prop_assert!(after <= before);
                prop_assert!(!plan.freqfolds.is_empty());
            }
            Err(error) => prop_assert!(error.to_string().contains("try --"), "{error}"),
        }
    }
}
