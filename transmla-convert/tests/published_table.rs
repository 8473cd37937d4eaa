//! The figures of the published Python converter on stories260K, reproduced from the same calibration and test tokens.

use transmla_convert::{FreqFold, MethodName, Recipe, Report, Style};
use transmla_core::StorageDtype;

mod stories;

fn options(rope_dim: usize, rank: usize, freqfold: usize) -> Recipe {
    Recipe {
        method: MethodName::Transmla,
        qk_mqa_dim: Some(rope_dim),
        kv_lora_rank: Some(rank),
        freqfold: FreqFold::Fixed(freqfold),
        dtype: StorageDtype::F32,
        ..Recipe::default()
    }
}

/// On all recorded tokens.
fn run(options: Recipe) -> Report {
    stories::convert_stories(&options, 128, 58).0
}

#[track_caller]
fn check(report: &Report, partial_rope: f64, mla: f64) {
    let near = |found: f64, expected: f64, tolerance: f64| (found / expected - 1.0).abs() < tolerance;
    let found = [report.original, report.partial_rope, report.mla].map(|p| p.unwrap().perplexity);
    assert!(near(found[0], 4.2138, 1e-4), "{found:?}");
    assert!(near(found[1], partial_rope, 1e-3), "{found:?}");
    assert!(near(found[2], mla, 1e-3), "{found:?}");
}

#[test]
fn rope_8_rank_28() {
    check(&run(options(8, 28, 1)), 6.4438, 7.9319);
}

#[test]
fn in_deepseek_style() {
    let style = Style::DeepseekV3;
    let report = run(Recipe {
        style,
        ..options(8, 28, 1)
    });
    check(&report, 6.4438, 7.9319);
}

#[test]
fn with_low_rank_queries() {
    let q_lora_rank = Some(32);
    for style in [Style::Family, Style::DeepseekV3] {
        let report = run(Recipe {
            q_lora_rank,
            style,
            ..options(8, 28, 1)
        });
        check(&report, 6.4438, 8.0167);
    }
}

/// The identity norm's latents stay within half precision: what its numbers cost is all that is lost.
#[test]
fn in_deepseek_style_and_half_precision() {
    for q_lora_rank in [None, Some(64)] {
        let report = run(Recipe {
            style: Style::DeepseekV3,
            dtype: StorageDtype::F16,
            q_lora_rank,
            ..options(8, 28, 1)
        });
        let mla = report.mla.unwrap().perplexity;
        assert!((mla / 7.9319 - 1.0).abs() < 2e-3, "{mla}");
    }
}

/// The published norm weight loses the scale (55.9); ours must keep it.
#[test]
fn with_latent_norms() {
    let report = run(Recipe {
        use_qkv_norm: true,
        ..options(8, 28, 1)
    });
    let mla = report.mla.unwrap().perplexity;
    assert!((7.9..20.0).contains(&mla), "{mla}");
}

#[test]
fn rope_8_rank_12() {
    check(&run(options(8, 12, 1)), 6.4438, 17.0709);
}

#[test]
fn with_twice_as_much_weight_on_keys() {
    let balance_kv_ratio = 2.0;
    let report = run(Recipe {
        balance_kv_ratio,
        ..options(8, 12, 1)
    });
    check(&report, 6.4438, 19.3820);
}

#[test]
fn rope_8_rank_20_freqfold_2() {
    check(&run(options(8, 20, 2)), 75.9113, 80.7382);
}

#[test]
fn rope_4_rank_28_freqfold_2() {
    check(&run(options(4, 28, 2)), 97.7759, 102.9075);
}

#[test]
fn freqfold_auto() {
    let report = run(Recipe {
        freqfold: FreqFold::Auto,
        ..options(4, 28, 1)
    });
    assert_eq!(report.freqfold, Some(2));
    assert_eq!(report.freqfold_trials.len(), 2);
    check(&report, 97.7759, 102.9075);
}
