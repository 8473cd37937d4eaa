//! Conversions that go well.

use serde_json::{Value, json};

use crate::damage::{overwrite, split_into_shards};
use crate::support::{Workplace, models, names, transmla, write_ids};

fn perplexity(result: &Value, of: &str) -> f64 {
    result["perplexity"][of].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn without_arguments_the_embedded_model_is_converted() {
    let place = Workplace::new();
    let quick = ["--cal-nsamples", "16", "--eval-max-windows", "2"];
    let method = "method       coherent, refined in 100 steps";
    let target = place.arg("outputs");
    let ran = transmla(&[&["convert", "--save-path", &target], &quick[..]].concat());
    assert!(ran.stderr.starts_with("Plan: embedded -> "), "{ran:?}");
    assert!(
        ran.stderr
            .contains("Calibration text: 16 x 256 tokens of embedded stories, train split"),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains("Evaluation text: 2 x 512 tokens of embedded stories, test split"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains(method), "{ran:?}");
    let summary = ran.succeeds();
    for words in ["64 -> 36 numbers", "original", "MLA", "peak memory"] {
        assert!(summary.contains(words), "no '{words}' in {summary}");
    }
    assert!(summary.contains("it writes    \"Once upon a time"), "{summary}");
    assert!(summary.contains("transmla generate --model-path"), "{summary}");
    let files = [
        "LICENSE",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "report.html",
        "tokenizer.json",
    ];
    let found = names(&place.path("outputs"));
    assert_eq!(
        found,
        [&files[..], &["tokenizer_config.json", "transmla.toml"]].concat()
    );
}

#[test]
fn json_has_what_programs_need() {
    let place = Workplace::new();
    let result = transmla(&place.convert(&["--json", "--refine", "3"])).json();
    let (original, mla) = (perplexity(&result, "original"), perplexity(&result, "mla"));
    assert!(original > 1.0 && original < mla, "{result}");
    assert_eq!(result["kv_cache"], json!({"original": 64, "mla": 36}));
    assert_eq!(
        (&result["method"], &result["refine"], &result["freqfold"]),
        (&json!("coherent"), &json!(3), &Value::Null)
    );
    assert_eq!(result["perplexity"]["partial_rope"], Value::Null);
    assert_eq!(result["shapes"]["kv_lora_rank"], 28);
    assert_eq!(result["layers"].as_array().map(Vec::len), Some(5));
    assert!(result["timings"]["total"].as_f64() > result["timings"]["compress"].as_f64());
    assert_eq!(result["save_path"], place.arg("outputs"));
    if cfg!(target_os = "linux") {
        assert!(result["peak_memory_bytes"].as_u64() > Some(1 << 20), "{result}");
        assert!(result["cpu_seconds"].as_f64() > Some(0.0), "{result}");
    }
}

#[test]
fn the_published_method_has_a_step_in_between() {
    let place = Workplace::new();
    let arguments = ["--json", "--method", "transmla"];
    let result = transmla(&place.convert(&arguments)).json();
    assert!(
        perplexity(&result, "original") < perplexity(&result, "partial_rope"),
        "{result}"
    );
    assert_eq!(
        (&result["method"], &result["refine"], &result["freqfold"]),
        (&json!("transmla"), &json!(0), &json!(1))
    );
    let refined = [&arguments[..], &["--refine", "3"]].concat();
    transmla(&place.convert(&refined)).fails(1, &["--refine", "coherent"]);
    let batched = [&arguments[..], &["--refine-batch", "2"]].concat();
    transmla(&place.convert(&batched)).fails(1, &["--refine-batch", "coherent"]);
}

/// The card has what the command has measured, and says whose the method is.
#[test]
fn a_card_has_perplexities_and_the_method() {
    let place = Workplace::new();
    let card = || std::fs::read_to_string(place.path("outputs/README.md")).unwrap();
    for (method, credits) in [
        (
            "coherent",
            "own method `coherent`; the model as a whole was not fine-tuned",
        ),
        ("transmla", "The method is the published one of [TransMLA]"),
    ] {
        let result = transmla(&place.convert(&["--json", "--force", "--method", method])).json();
        for (label, model) in [("perplexity", "mla"), ("perplexity of the original", "original")] {
            let row = format!("| {label} | {:.3}", perplexity(&result, model));
            assert!(card().contains(&row), "no '{row}' in {}", card());
        }
        assert!(
            card().contains(credits) && card().contains("| perplexities measured on | "),
            "{}",
            card()
        );
    }
    transmla(&place.convert(&["--force", "--ppl-eval-batch-size", "0"])).succeeds();
    assert!(!card().contains("perplexit"), "{}", card());
}

#[test]
fn an_evaluation_can_be_left_out() {
    let place = Workplace::new();
    let result = transmla(&place.convert(&["--ppl-eval-batch-size", "0", "--json", "--quiet"]));
    assert_eq!(result.stderr, "");
    let result = result.json();
    assert_eq!(
        result["perplexity"],
        json!({"original": null, "partial_rope": null, "mla": null})
    );
    assert_eq!(result["kv_cache"]["mla"], 36);
}

/// A perplexity like that of a guess is said to be one, and whose it is.
#[test]
fn a_perplexity_that_is_a_guess_is_said() {
    let place = Workplace::new();
    assert_eq!(transmla(&place.convert(&["--json"])).json()["warnings"], json!([]));
    // Zeros behind the last norm give every token the same share.
    for element in 0..64 {
        overwrite(&place.path("model"), "model.norm.weight", element, 0.0);
    }
    let arguments = place.convert(&["--method", "transmla", "--force"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let table = transmla(&arguments).succeeds();
    let says = ["WARNING", "the original's perplexity", "guessing among 512 tokens"];
    assert!(says.iter().all(|words| table.contains(words)), "{table}");
    let json = transmla(&[&arguments[..], &["--json"]].concat()).json();
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.contains("no better than"), "{json}");
}

#[test]
fn a_recipe_makes_the_same_model_again() {
    let place = Workplace::new();
    transmla(&place.convert(&["--seed", "7", "--dtype", "fp32"])).succeeds();
    let (recipe, again) = (place.arg("outputs/transmla.toml"), place.arg("again"));
    transmla(&["convert", "--recipe", &recipe, "--save-path", &again]).succeeds();
    for file in ["model.safetensors", "config.json", "transmla.toml"] {
        let read = |folder: &str| std::fs::read(place.path(folder).join(file)).unwrap();
        assert!(read("outputs") == read("again"), "{file} differs");
    }
    // Options go before the recipe.
    let arguments = [
        "convert",
        "--recipe",
        &recipe,
        "--kv-lora-rank",
        "12",
        "--dry-run",
        "--json",
    ];
    let plan = transmla(&arguments).json();
    assert_eq!(
        (&plan["shapes"]["kv_lora_rank"], &plan["dtype"]),
        (&json!(12), &json!("fp32"))
    );
}

#[test]
fn streamed_and_sharded_gives_the_same_model() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32"])).succeeds();
    let loaded = std::fs::read(place.path("outputs/model.safetensors")).unwrap();
    split_into_shards(&place.path("model"));
    transmla(&place.convert(&["--dtype", "fp32", "--max-memory", "1MB", "--force"])).succeeds();
    assert!(std::fs::read(place.path("outputs/model.safetensors")).unwrap() == loaded);
    transmla(&place.convert(&["--max-shard-size", "200KB", "--force"])).succeeds();
    let files = names(&place.path("outputs"));
    assert!(files.contains(&"model.safetensors.index.json".to_owned()), "{files:?}");
    assert!(!files.contains(&"model.safetensors".to_owned()), "{files:?}");
}

/// Weights stay in memory where everything fits with them, and what does not fit at all is said.
#[test]
fn the_memory_limit_counts_for_everything() {
    let place = Workplace::new();
    let little = [
        "--method",
        "transmla",
        "--cal-nsamples",
        "8",
        "--ppl-eval-batch-size",
        "0",
        "--verbose",
        "--force",
    ];
    for (limit, weights, warned) in [
        ("64MiB", "read layer by layer", true),
        ("1GiB", "kept in memory", false),
    ] {
        let ran = transmla(&place.convert(&[&little[..], &["--max-memory", limit]].concat()));
        assert!(ran.stderr.contains(weights), "{limit}: {}", ran.stderr);
        assert_eq!(
            ran.stderr.contains("more than --max-memory 64.0 MiB"),
            warned,
            "{limit}: {}",
            ran.stderr
        );
        ran.succeeds();
    }
    // Nobody has set a limit.
    let ran = transmla(&place.convert(&["--dry-run", "--force"]));
    assert!(!ran.stderr.contains("--max-memory"), "{}", ran.stderr);
}

#[test]
fn token_files_need_no_tokenizer() {
    let place = Workplace::new();
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let ids: Vec<i64> = (0..192).map(|i| 3 + i * 37 % 500).collect();
    write_ids(&place.path("ids.safetensors"), &ids, [6, 32]);
    let file = place.arg("ids.safetensors");
    let more = [
        "--cal-tokens",
        &file,
        "--eval-tokens",
        &file,
        "--eval-seqlen",
        "16",
        "--json",
    ];
    let ran = transmla(&place.convert(&more));
    assert!(ran.stderr.contains("4 x 32 tokens"), "the first four rows: {ran:?}");
    assert!(
        ran.stderr.contains("2 x 16 tokens"),
        "the first tokens of the first two rows: {ran:?}"
    );
    assert_eq!(ran.json()["evaluation"]["predictions"], 30);
    let more = [
        "--cal-tokens",
        &file,
        "--cal-nsamples",
        "99",
        "--ppl-eval-batch-size",
        "0",
        "--force",
    ];
    let ran = transmla(&place.convert(&more));
    assert!(ran.stderr.contains("has 6 rows where 99 were asked for"), "{ran:?}");
    assert!(ran.succeeds().contains("transmla inspect"));
}

#[test]
fn a_dry_run_needs_config_and_headers_alone() {
    let place = Workplace::new();
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    std::fs::remove_file(place.path("model/tokenizer_config.json")).unwrap();
    let more = ["--dry-run", "--cal-dataset", "wikitext2", "--json"];
    let plan = transmla(&place.convert(&more)).json();
    assert_eq!(plan["kv_cache"], json!({"original": 64, "mla": 36}));
    assert_eq!(plan["tensors"].as_array().map(Vec::len), Some(53));
    assert!(place.contents().is_empty());
    let budget = ["convert", "--kv-budget", "25%", "--dry-run", "--json"];
    assert_eq!(transmla(&budget).json()["kv_cache"]["mla"], 16);
}

#[test]
fn windows_are_no_longer_than_the_context() {
    let place = Workplace::new();
    let model = place.arg("model");
    let shapes = ["--qk-mqa-dim", "8", "--kv-lora-rank", "28", "--dry-run"];
    let plan = transmla(&[&["convert", "--model-path", &model], &shapes[..]].concat()).succeeds();
    assert!(
        plan.contains("windows of 512 tokens (the model's whole context) of wikitext2"),
        "{plan}"
    );
    let long = transmla(&place.convert(&["--eval-seqlen", "600", "--dry-run"]));
    assert!(long.stderr.contains("warning: windows of 600 tokens"), "{long:?}");
}

#[test]
fn text_may_be_a_folder() {
    let place = Workplace::new();
    let folder = models().join("stories");
    let ran = transmla(&place.convert(&["--cal-dataset", folder.to_str().unwrap(), "--deepseek-style"]));
    assert!(
        ran.stderr.contains("train split") && ran.stderr.contains("test split"),
        "{ran:?}"
    );
    assert!(ran.succeeds().contains("stock DeepseekV3ForCausalLM"));
    let recipe = std::fs::read_to_string(place.path("outputs/transmla.toml")).unwrap();
    // It lies elsewhere: its name alone.
    assert!(recipe.contains("cal-dataset = \"./stories\""), "{recipe}");
}

#[test]
fn calibration_text_can_be_a_weighted_mix() {
    let place = Workplace::new();
    let notes = place.path("notes, 1:2.txt");
    let line = "The cat sat on the mat and looked at the big red ball in the garden. ";
    std::fs::write(&notes, format!("{}\n\n", line.repeat(20)).repeat(40)).unwrap();
    let notes = notes.to_str().unwrap();
    let run = |mix: &str, target: &str| {
        let target = place.arg(target);
        let quick = [
            "--cal-nsamples",
            "12",
            "--cal-max-seqlen",
            "64",
            "--ppl-eval-batch-size",
            "0",
        ];
        transmla(
            &[
                &[
                    "convert",
                    "--save-path",
                    &target,
                    "--freqfold",
                    "1",
                    "--cal-dataset",
                    mix,
                ],
                &quick[..],
            ]
            .concat(),
        )
    };
    // A path with a comma and a colon is a path.
    let alone = run(notes, "alone");
    assert!(alone.stderr.contains("12 x 64 tokens of"), "{alone:?}");
    alone.succeeds();
    let plain = place.path("notes.txt");
    std::fs::copy(notes, &plain).unwrap();
    let mixed = run(&format!("stories:2,{}:1", plain.display()), "mixed");
    let origin = "12 x 64 tokens of 8 x embedded stories, train split; 4 x ";
    assert!(mixed.stderr.contains(origin), "{mixed:?}");
    mixed.succeeds();
    let recipe = std::fs::read_to_string(place.path("mixed/transmla.toml")).unwrap();
    assert!(recipe.contains("stories:2,../notes.txt:1"), "{recipe}");

    transmla(&["convert", "--cal-dataset", "stories:0,ptb:1"]).fails(2, &["'0'", "positive number"]);
    transmla(&["convert", "--cal-dataset", "stories:2,nothing-here:1"]).fails(2, &["wikitext2, ptb"]);
    run("stories,stories", "few").succeeds();
    let few = [
        "convert",
        "--cal-dataset",
        "stories:1,ptb:1",
        "--cal-nsamples",
        "1",
        "--freqfold",
        "1",
    ];
    transmla(&[&few[..], &["--save-path", &place.arg("one")]].concat()).fails(1, &["--cal-nsamples 2"]);
}
