//! Bad input gives one clear message and exit code 1, and leaves nothing behind.

use serde_json::json;

use crate::damage::{overwrite, shard, split_into_shards, truncate};
use crate::support::{Workplace, models, transmla, write_ids};

/// Converts, expects these words in the error, and nothing where the model would be but what was done until then, to go on with.
#[track_caller]
fn refuses(place: &Workplace, more: &[&str], words: &[&str]) {
    let contents = || {
        let mut names = place.contents();
        names.retain(|name| name != ".outputs.layers");
        names
    };
    let before = contents();
    transmla(&place.convert(more)).fails(1, words);
    assert_eq!(contents(), before);
}

#[test]
fn a_shard_that_is_missing() {
    let place = Workplace::new();
    split_into_shards(&place.path("model"));
    std::fs::remove_file(place.path("model").join(shard(1))).unwrap();
    refuses(&place, &[], &[&shard(1), "is missing", "download the model again"]);
}

#[test]
fn weights_that_are_truncated() {
    let place = Workplace::new();
    truncate(&place.path("model/model.safetensors"), 100);
    refuses(
        &place,
        &[],
        &["model.safetensors is not a valid safetensors file", "bytes"],
    );
    std::fs::write(place.path("model/model.safetensors"), "").unwrap();
    refuses(&place, &[], &["model.safetensors"]);
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    refuses(&place, &[], &["model.safetensors is missing"]);
}

/// A plan lists every tensor: it does so in no time for as many layers as are taken, and more are refused at once.
#[test]
fn a_plan_of_very_many_layers() {
    let place = Workplace::new();
    std::fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let started = std::time::Instant::now();
    place.set_config("num_hidden_layers", json!(16384));
    transmla(&place.convert(&["--dry-run", "--quiet"])).succeeds();
    place.set_config("num_hidden_layers", json!(1 << 20));
    refuses(&place, &["--dry-run"], &["num_hidden_layers", "16384"]);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[test]
fn a_tensor_of_another_shape() {
    let place = Workplace::new();
    place.set_config("intermediate_size", json!(180));
    refuses(
        &place,
        &[],
        &["model.layers.0.mlp.gate_proj.weight", "[180, 64]", "[172, 64]"],
    );
}

#[test]
fn a_weight_that_is_not_a_number() {
    let place = Workplace::new();
    let tensor = "model.layers.3.mlp.up_proj.weight";
    overwrite(&place.path("model"), tensor, 77, f32::NAN);
    refuses(&place, &[], &[tensor, "NaN", "element 77"]);
    // Streamed, the layer is read when the folder of the result is already begun.
    refuses(&place, &["--max-memory", "1MB"], &[tensor, "NaN", "element 77"]);
    refuses(
        &place,
        &["--max-memory", "1MB", "--ppl-eval-batch-size", "0"],
        &[tensor, "NaN"],
    );
}

#[test]
fn a_model_of_unknown_type() {
    let place = Workplace::new();
    place.set_config("model_type", json!("mamba"));
    refuses(&place, &[], &["mamba", "supported: llama"]);
    place.set_config("model_type", json!("llama"));
    place.set_config("rope_scaling", json!({"rope_type": "longrope", "factor": 4.0}));
    refuses(&place, &[], &["RoPE scaling", "longrope"]);
    place.set_config("rope_scaling", json!(null));
    place.set_config("quantization_config", json!({"quant_method": "fp8"}));
    refuses(&place, &[], &["quantization_config", "fp8"]);
    std::fs::write(place.path("model/config.json"), "{").unwrap();
    refuses(&place, &[], &["config.json"]);
}

#[test]
fn a_folder_without_a_model() {
    let place = Workplace::new();
    refuses(
        &place,
        &["--model-path", &place.arg("nothing")],
        &["nothing", "no such model folder"],
    );
    refuses(
        &place,
        &["--model-path", "org/nothing"],
        &["org/nothing", "HF_HUB_OFFLINE"],
    );
}

#[test]
fn a_tokenizer_that_is_absent_or_broken() {
    let place = Workplace::new();
    let tokenizer = place.path("model/tokenizer.json");
    std::fs::write(&tokenizer, "{}").unwrap();
    refuses(&place, &[], &["tokenizer.json", "not a valid tokenizer"]);
    std::fs::remove_file(&tokenizer).unwrap();
    refuses(&place, &[], &["tokenizer.json", "missing", "hint:", "--cal-tokens"]);
}

#[test]
fn text_that_is_empty_or_too_short() {
    let place = Workplace::new();
    let file = place.arg("text.txt");
    std::fs::write(&file, " \n\n \n").unwrap();
    refuses(
        &place,
        &["--cal-dataset", &file],
        &["text.txt", "holds no text", "hint:"],
    );
    std::fs::write(&file, "Once upon a time.").unwrap();
    refuses(
        &place,
        &["--cal-dataset", &file],
        &["text.txt", "32 tokens are needed", "--cal-max-seqlen"],
    );
    refuses(
        &place,
        &["--eval-dataset", &file],
        &["text.txt", "windows of at most 6 tokens", "--eval-tokens"],
    );
    refuses(
        &place,
        &["--cal-dataset", "wikitext2"],
        &["train split of wikitext2", "hint:"],
    );
}

#[test]
fn token_ids_that_do_not_fit() {
    let place = Workplace::new();
    let file = place.path("ids.safetensors");
    let name = place.arg("ids.safetensors");
    write_ids(&file, &[1, 2, 3, 512], [2, 2]);
    refuses(
        &place,
        &["--cal-tokens", &name],
        &["ids.safetensors", "token id 512", "vocabulary of 512"],
    );
    refuses(&place, &["--eval-tokens", &name], &["ids.safetensors", "token id 512"]);
    write_ids(&file, &[1, -2], [1, 2]);
    refuses(&place, &["--cal-tokens", &name], &["ids.safetensors", "-2"]);
    write_ids(&file, &[], [0, 2]);
    refuses(&place, &["--cal-tokens", &name], &["ids.safetensors", "no token"]);
    let weights = models().join("stories260k/model.safetensors");
    refuses(&place, &["--cal-tokens", weights.to_str().unwrap()], &["input_ids"]);
    refuses(
        &place,
        &["--cal-tokens", &place.arg("nothing")],
        &["nothing", "No such file"],
    );
}

#[test]
fn shapes_that_do_not_fit_the_model() {
    let place = Workplace::new();
    for (option, value, words) in [
        (
            "--kv-lora-rank",
            "512",
            ["1 to 56 is possible", "try --kv-lora-rank 24"],
        ),
        ("--qk-mqa-dim", "64", ["one of 2, 4, 8", "try --qk-mqa-dim 8"]),
        ("--qk-mqa-dim", "3", ["one of 2, 4, 8", "try --qk-mqa-dim 2"]),
        ("--q-lora-rank", "65", ["1 to 64 is possible", "try --q-lora-rank 32"]),
        ("--freqfold", "3", ["for example 1, 2, 4", "try --freqfold auto"]),
        ("--collapse", "2", ["--collapse 2 does not fit", "try --collapse 1"]),
        (
            "--balance-kv-ratio",
            "0",
            ["positive number", "try --balance-kv-ratio 1"],
        ),
    ] {
        refuses(&place, &[option, value], &words);
    }
    let budget = ["convert", "--kv-budget", "1%", "--save-path", &place.arg("outputs")];
    transmla(&budget).fails(1, &["--kv-budget 1%", "to 100% is possible", "try --kv-budget 25%"]);
}

#[test]
fn a_recipe_that_is_none() {
    let place = Workplace::new();
    let file = place.arg("recipe.toml");
    refuses(&place, &["--recipe", &file], &["recipe.toml", "No such file"]);
    std::fs::write(&file, "model-path = 'm'\nkv-lora-rnak = 3\n").unwrap();
    refuses(&place, &["--recipe", &file], &["recipe.toml", "kv-lora-rnak"]);
}

#[test]
fn a_device_that_is_not_built_in() {
    let place = Workplace::new();
    if cfg!(not(feature = "cuda")) {
        refuses(&place, &["--device", "cuda:0"], &["cuda:0", "--features cuda"]);
    }
}
