//! Sweeps: as conversions one by one, with a picture.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Workplace, names, transmla};

const QUICK: &str = "--cal-dataset stories --cal-nsamples 8 --cal-max-seqlen 64 --eval-seqlen 64 --eval-max-windows 2";

/// Arguments of a command on the model of a workplace that takes no time.
fn quick(command: &str, place: &Workplace, more: &str) -> Vec<String> {
    let words = format!("{command} --json {QUICK} {more}");
    let mut arguments: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    arguments.extend(["--model-path".into(), place.arg("model")]);
    arguments
}

#[test]
fn has_the_numbers_of_conversions_one_by_one() {
    let place = Workplace::new();
    let (output, kept) = (place.arg("picture"), place.arg("models"));
    let more = format!("--budgets 8+28,4+12 --refine 0,2 --output {output} --save-path {kept}");
    let ran = transmla(&quick("sweep", &place, &more));
    assert!(ran.stderr.contains("to 6 models: transmla at 8+28, 4+12"), "{ran:?}");
    let result = ran.json();
    let written: Value = serde_json::from_slice(&fs::read(place.path("picture/sweep.json")).unwrap()).unwrap();
    let mut expected = result.clone();
    for model in expected["models"].as_array_mut().unwrap() {
        // The file may go elsewhere.
        let folder = std::path::PathBuf::from(model["save_path"].as_str().unwrap());
        model["save_path"] = json!(folder.file_name().unwrap().to_str());
    }
    assert_eq!(expected, written);
    assert_eq!(result["original"]["kv_cache"], 64);

    let models = result["models"].as_array().unwrap();
    assert_eq!(models.len(), 6);
    for model in models {
        let target = place.arg("alone");
        let shape = ["method", "refine", "qk_mqa_dim", "kv_lora_rank"].map(|key| model[key].to_string());
        let [method, refine, rope, rank] = shape.each_ref().map(|word| word.trim_matches('"'));
        let more = format!(
            "--method {method} --refine {refine} --qk-mqa-dim {rope} --kv-lora-rank {rank} --save-path {target} --force --no-report"
        );
        let alone = transmla(&quick("convert", &place, &more)).json();
        assert_eq!(alone["perplexity"]["mla"], model["perplexity"], "{model}");
        assert_eq!(
            alone["perplexity"]["partial_rope"], model["partial_rope_perplexity"],
            "{model}"
        );
        assert_eq!(
            alone["perplexity"]["original"], result["original"]["perplexity"],
            "{model}"
        );
        assert_eq!(alone["kv_cache"]["mla"], model["kv_cache"], "{model}");
        assert_eq!(alone["freqfold"], model["freqfold"], "{model}");
        let kept = model["save_path"].as_str().unwrap();
        for file in ["model.safetensors", "config.json", "README.md"] {
            let [one, other] = [kept, &target].map(|folder| fs::read(format!("{folder}/{file}")).unwrap());
            assert!(one == other, "{model}: {file} differs");
        }
        // The original lies beside the one folder and elsewhere for the other.
        let recipes = [(kept, "./model"), (&target, "../model")].map(|(folder, original)| {
            let recipe = fs::read_to_string(format!("{folder}/transmla.toml")).unwrap();
            let line = format!("model-path = \"{original}\"");
            assert!(recipe.contains(&line), "{recipe}");
            recipe.replace(&line, "")
        });
        assert_eq!(recipes[0], recipes[1], "{model}");
    }
    let kept = names(&place.path("models"));
    let expected = [
        "coherent-4-12",
        "coherent-8-28",
        "coherent-refine2-4-12",
        "coherent-refine2-8-28",
    ];
    assert_eq!(kept, [&expected[..], &["transmla-4-12", "transmla-8-28"]].concat());

    assert_eq!(
        names(&place.path("picture")),
        ["report.html", "sweep.json", "sweep.svg"]
    );
    let page = fs::read_to_string(place.path("picture/report.html")).unwrap();
    for model in models {
        let perplexity = format!("<td>{:.4}</td>", model["perplexity"].as_f64().unwrap());
        assert!(page.contains(&perplexity), "{perplexity}: {page}");
    }
    assert!(!page.contains(&place.arg("")), "{page}");
    let picture = fs::read_to_string(place.path("picture/sweep.svg")).unwrap();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let titles: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name("title"))
        .filter_map(|node| node.text())
        .collect();
    for model in models {
        let end = format!("perplexity {:.4}", model["perplexity"].as_f64().unwrap());
        assert!(titles.iter().any(|title| title.ends_with(&end)), "{end}: {titles:?}");
    }
}

#[test]
fn leaves_nothing_but_the_files_asked_for() {
    let place = Workplace::new();
    let json = place.arg("figures/a.json");
    let more = format!("--budgets 25%,8+8 --methods transmla,transmla --figures {json}");
    let result = transmla(&quick("sweep", &place, &more)).json();
    // A quarter of 64 is 8 + 8: one model.
    assert_eq!(result["models"].as_array().map(Vec::len), Some(1));
    assert_eq!(result["models"][0]["save_path"], json!(null));
    assert_eq!(
        (place.contents(), names(&place.path("figures"))),
        (vec!["figures".into()], vec!["a.json".into()])
    );
}

#[test]
fn what_does_not_fit_is_found_before_any_work() {
    let place = Workplace::new();
    fs::create_dir_all(place.path("models/coherent-8-28")).unwrap();
    fs::write(place.path("file"), "").unwrap();
    let [file, output, models, model] = ["file/x", "sweep", "models", "model"].map(|name| place.arg(name));
    for (more, words) in [
        (
            "--budgets 8+28,8+57".into(),
            ["1 to 56 is possible", "try --budgets 8+24"],
        ),
        ("--budgets 8+28,3+8".into(), ["one of 2, 4, 8", "try --budgets 2+8"]),
        ("--budgets 1%".into(), ["to 100% is possible", "try --budgets 25%"]),
        (
            "--budgets 8+28,4+28 --freqfold 1".into(),
            ["--budgets 4+28", "multiple of collapse 2"],
        ),
        (
            "--ppl-eval-batch-size 0".into(),
            ["--ppl-eval-batch-size", "at least 1"],
        ),
        ("--methods transmla --refine 3".into(), ["--refine", "--methods"]),
        (
            format!("--budgets 8+28 --refine 0 --save-path {models}"),
            ["coherent-8-28 exists", "--force"],
        ),
        (format!("--budgets 8+28 --svg {file}"), ["cannot write", "file/x"]),
        (format!("--budgets 8+28 --svg {model}"), ["it is a folder", "--svg"]),
    ] {
        let started = Instant::now();
        let output = if more.contains("--svg") {
            String::new()
        } else {
            format!("--output {output}")
        };
        transmla(&quick("sweep", &place, &format!("{more} {output}"))).fails(1, &words);
        assert!(started.elapsed().as_secs() < 5, "{more}");
    }
    assert_eq!(names(&place.path("models")), ["coherent-8-28"]);
}

#[test]
fn files_are_overwritten_only_on_purpose() {
    let place = Workplace::new();
    let (config, text) = (
        fs::read(place.path("model/config.json")).unwrap(),
        "once upon a time\n".repeat(400),
    );
    fs::write(place.path("words.txt"), &text).unwrap();
    fs::write(place.path("mine"), "mine").unwrap();
    fs::create_dir(place.path("taken")).unwrap();
    fs::write(place.path("taken/sweep.json"), "mine").unwrap();
    let [model, words, mine, taken, new] =
        ["model/config.json", "words.txt", "mine", "taken", "new"].map(|name| place.arg(name));
    let sweep = |more: &str| {
        transmla(&quick(
            "sweep",
            &place,
            &format!("--budgets 8+28 --methods transmla {more}"),
        ))
    };
    sweep(&format!("--figures {mine}")).fails(1, &["mine exists", "--force", "--figures"]);
    sweep(&format!("--svg {mine} --figures {new}")).fails(1, &["mine exists", "--force", "--svg"]);
    sweep(&format!("--output {taken}")).fails(1, &["sweep.json exists", "--force", "--output"]);
    sweep(&format!("--svg {new} --figures {new}")).fails(1, &["one file", "each its own"]);
    for option in ["--svg", "--figures"] {
        sweep(&format!("{option} {model}")).fails(1, &["config.json exists"]);
        sweep(&format!("--force {option} {model}")).fails(1, &["would overwrite the model", option]);
    }
    let text_options = quick("sweep", &place, &format!("--force --figures {words} --budgets 8+28"));
    let text_options: Vec<String> = text_options
        .into_iter()
        .map(|word| if word == "stories" { words.clone() } else { word })
        .collect();
    transmla(&text_options).fails(1, &["would overwrite the calibration text", "words.txt"]);
    assert_eq!(fs::read(place.path("model/config.json")).unwrap(), config);
    assert_eq!(fs::read_to_string(place.path("words.txt")).unwrap(), text);
    assert_eq!(place.contents(), ["mine", "taken", "words.txt"]);
    assert_eq!(names(&place.path("taken")), ["sweep.json"]);
    sweep(&format!("--force --figures {mine}")).succeeds();
    assert!(serde_json::from_slice::<Value>(&fs::read(place.path("mine")).unwrap()).is_ok());
    assert_eq!(place.contents(), ["mine", "taken", "words.txt"]);
}
