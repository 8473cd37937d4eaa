//! Recipes as text and back.

use super::*;
use proptest::prelude::*;

fn recipes() -> impl Strategy<Value = Recipe> {
    let auto = || prop::option::of(1usize..64);
    let shapes = (
        1usize..256,
        auto(),
        auto(),
        1usize..1024,
        prop::option::of(1usize..1024),
    );
    let flags = (any::<bool>(), 0usize..3, 0.01f64..100.0, 0usize..3);
    let texts = (
        "[ -~]{1,20}",
        auto(),
        auto(),
        prop::option::of("[a-z/.]{1,9}"),
        0u64..1 << 63,
    );
    (shapes, flags, texts).prop_map(|(shapes, flags, texts)| Recipe {
        model_path: texts.0,
        refine: texts.2.map(|steps| 10 * steps),
        refine_batch: texts.1.map(|sequences| sequences + 1),
        dtype: [StorageDtype::F32, StorageDtype::F16, StorageDtype::Bf16][flags.3],
        qk_mqa_dim: shapes.1.map(|width| width + shapes.0),
        collapse: shapes.1,
        freqfold: shapes.2.into(),
        kv_lora_rank: shapes.2.map(|width| width + shapes.3),
        q_lora_rank: shapes.4,
        balance_kv_ratio: flags.2,
        key_norm: [None, Some(KeyNorm::Exact)][usize::from(flags.0)],
        use_qkv_norm: flags.0,
        style: [Style::Auto, Style::DeepseekV3, Style::Family][flags.1],
        engine: [None, Some(Engine::Vllm), Some(Engine::LlamaCpp)][flags.1],
        format: [None, Some(FileFormat::Safetensors), Some(FileFormat::Gguf)][flags.3],
        pre_tokenizer: texts.1.map(|_| "gpt-2".into()),
        calibration: CalibrationText {
            cal_tokens: texts.3.clone().map(PathBuf::from),
            text_column: texts.3.clone(),
            cal_nsamples: texts.1,
            cal_noise: texts.1.map(|samples| 1.0 / samples as f64),
            seed: texts.4,
            ..CalibrationText::default()
        },
        evaluation: EvaluationText {
            eval_dataset: texts.3,
            eval_max_windows: texts.2,
            ..EvaluationText::default()
        },
        ..Recipe::default()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(recipe in recipes()) {
        let text = recipe.to_toml().unwrap();
        prop_assert_eq!(Recipe::from_toml(&text).unwrap(), recipe);
    }
}

#[test]
fn a_list_of_files_is_no_part_of_it() {
    let recipe = Recipe::default();
    let named = Recipe {
        model_path: "m".into(),
        ..recipe
    };
    let text = named.to_toml().unwrap() + "\n[files]\n\"config.json\" = 700\n";
    assert_eq!(Recipe::from_toml(&text).unwrap(), named);
}

#[test]
fn what_is_left_out_has_its_default() {
    let recipe = Recipe::from_toml("model-path = 'm'\nfreqfold = 4\n[calibration]\nseed = 7").unwrap();
    assert_eq!((recipe.freqfold, recipe.calibration.seed), (FreqFold::Fixed(4), 7));
    let mut expected = Recipe {
        model_path: "m".into(),
        freqfold: FreqFold::Fixed(4),
        ..Recipe::default()
    };
    expected.calibration.seed = 7;
    assert_eq!(recipe, expected);
}

#[test]
fn fields_are_keys_of_the_file() {
    let mut full = Recipe {
        refine: Some(3),
        refine_batch: Some(2),
        latent_groups: Some(2),
        tied: true,
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        q_lora_rank: Some(9),
        key_norm: Some(KeyNorm::Exact),
        engine: Some(Engine::Vllm),
        format: Some(FileFormat::Gguf),
        evaluation: EvaluationText {
            eval_dataset: Some("ptb".into()),
            ..EvaluationText::default()
        },
        ..Recipe::default()
    };
    full.calibration.cal_dataset = Some("wikitext2".into());
    let text = full.to_toml().unwrap();
    for field in RECIPE_FIELDS {
        let line = format!("\n{} = ", field.replace('_', "-"));
        assert!(text.contains(&line), "{field}: {text}");
    }
}

#[test]
fn tasks_stand_in_the_file_where_there_are_some() {
    let mut recipe = Recipe {
        model_path: "m".into(),
        ..Recipe::default()
    };
    assert!(!recipe.to_toml().unwrap().contains("[tasks]"));
    recipe.tasks.names = vec!["piqa".into(), "./mine.toml".into()];
    (recipe.tasks.limit, recipe.tasks.num_fewshot) = (Some(0.5), 3);
    let text = recipe.to_toml().unwrap();
    assert!(
        text.contains("[tasks]\nnames = [\"piqa\", \"./mine.toml\"]\n"),
        "{text}"
    );
    assert_eq!(Recipe::from_toml(&text).unwrap(), recipe);
    for limit in [0.0, -1.0, 2.5, f64::NAN, f64::INFINITY] {
        recipe.tasks.limit = Some(limit);
        assert!(
            recipe.check().unwrap_err().to_string().contains("tasks.limit"),
            "{limit}"
        );
    }
}

#[test]
fn llama_cpp_reads_gguf_unless_told_otherwise() {
    for (lines, format) in [
        ("", FileFormat::Safetensors),
        ("target = 'vllm'", FileFormat::Safetensors),
        ("target = 'llama.cpp'", FileFormat::Gguf),
        ("target = 'llama.cpp'\nformat = 'safetensors'", FileFormat::Safetensors),
        ("format = 'gguf'", FileFormat::Gguf),
    ] {
        let recipe = Recipe::from_toml(&format!("model-path = 'm'\n{lines}")).unwrap();
        assert_eq!(recipe.file_format(), format, "{lines}");
    }
}

#[test]
fn the_published_flag_is_a_style() {
    for (line, style) in [
        ("", Style::Auto),
        ("deepseek-style = true", Style::DeepseekV3),
        ("deepseek-style = false", Style::Family),
        ("style = 'deepseek-v3'", Style::DeepseekV3),
    ] {
        let recipe = Recipe::from_toml(&format!("model-path = 'm'\n{line}")).unwrap();
        assert_eq!(recipe.style, style, "{line}");
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    for (text, word) in [
        ("model-path = 'm'\nkv-lora-rnak = 3", "kv-lora-rnak"),
        ("model-path = 'm'\n[calibration]\nsede = 3", "sede"),
        ("model-path = 'm'\nfreqfold = 'often'", "often"),
        ("model-path = 'm'\nfreqfold = 0", "positive"),
        ("model-path = 'm'\ndtype = 'int4'", "fp32"),
        ("model-path = 'm'\nstyle = 'llama'", "deepseek-v3"),
        ("model-path = 'm'\ntarget = 'tgi'", "llama.cpp"),
        ("model-path = 'm'\nkv-lora-rank = -1", "line 2"),
        ("model-path = 'm'\nqk-mqa-dim = 0", "positive integer"),
        (
            "model-path = 'm'\n[calibration]\ncal-batch-size = 0",
            "cal_batch_size is 0",
        ),
        (
            "model-path = 'm'\n[calibration]\ncal-noise = 2.0",
            "cal_noise is 2; expected a share",
        ),
        ("model-path = 'm'\n[calibration]\ncal-noise = nan", "cal_noise is NaN"),
        (
            "model-path = 'm'\n[evaluation]\neval-seqlen = 1",
            "eval_seqlen is 1; expected 2 or more",
        ),
        ("freqfold = 4", "model-path"),
        ("model-path", "line 1"),
    ] {
        let error = Recipe::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}
