//! `transmla eval --tasks` as a user runs it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Ran, Workplace, names, transmla};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-eval/tests/tasks/data")
}

fn eval(more: &[&str]) -> Ran {
    let data = data().display().to_string();
    transmla(&[&["eval", "--model-path", "embedded", "--tasks-data", &data], more].concat())
}

#[test]
fn results_and_samples_are_written_as_the_harness_does() {
    let place = Workplace::new();
    let output = place.path("results");
    let folder = place.arg("results");
    eval(&[
        "--tasks",
        "arc_easy,mmlu_stem",
        "--limit",
        "2",
        "--log-samples",
        "--output",
        &folder,
    ])
    .succeeds();
    let files = names(&output);
    assert_eq!(files.len(), 1 + 1 + 19, "{files:?}");
    let read = |start: &str| {
        let name = files.iter().find(|name| name.starts_with(start)).unwrap();
        std::fs::read_to_string(output.join(name)).unwrap()
    };
    let results: Value = serde_json::from_str(&read("results_")).unwrap();
    assert!(results["results"]["arc_easy"]["acc_norm,none"].is_number());
    assert!(results["groups"]["mmlu_stem"]["acc_stderr,none"].is_number());
    assert_eq!(results["n-samples"]["arc_easy"]["effective"], 2);
    let samples = read("samples_arc_easy_");
    assert_eq!(samples.lines().count(), 2);
    let sample: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert!(
        sample["arguments"]["gen_args_0"]["arg_0"]
            .as_str()
            .unwrap()
            .starts_with("Question: ")
    );
    assert!(matches!(
        sample["filtered_resps"][0][1].as_str(),
        Some("True" | "False")
    ));
}

#[test]
fn a_model_against_itself_changes_nothing() {
    let place = Workplace::new();
    let found = eval(&["--tasks", "piqa", "--limit", "5", "--against", "embedded", "--json"]).json();
    let against = &found["tasks"][0]["against"];
    assert_eq!(
        (&against["lost"], &against["gained"], &against["kl"]),
        (&0.into(), &0.into(), &0.0.into())
    );
    let file = place.arg("r.json");
    let words = ["--tasks", "piqa", "--limit", "5", "--output", &file];
    eval(&words).succeeds();
    assert!(place.path("r.json").is_file());
    eval(&words).fails(1, &["r.json", "exists"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (more, says) in [
        (&["--tasks", "arc_esy"][..], &["arc_esy", "arc_easy"][..]),
        (&["--tasks", "needle", "--needle-lengths", "4096"], &["4096", "512"]),
        (&["--tasks", "arc_easy", "--apply-chat-template"], &["chat template"]),
        (
            &["--tasks", "arc_easy", "--log-samples", "--output", "r.json"],
            &["--log-samples", "folder"],
        ),
    ] {
        eval(more).fails(1, says);
    }
    transmla(&[
        "eval",
        "--model-path",
        "embedded",
        "--dataset",
        "stories",
        "--num-fewshot",
        "2",
    ])
    .fails(1, &["--num-fewshot", "--tasks"]);
}

/// Words of `convert` and `sweep` for a few records of two tasks.
fn asked(more: &[&str]) -> Vec<String> {
    let data = data().display().to_string();
    let words = ["--tasks", "piqa,arc_easy", "--limit", "6", "--tasks-data", &data];
    words.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_conversion_asks_what_eval_asks() {
    let place = Workplace::new();
    let words = asked(&["--json"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = transmla(&place.convert(&words)).json();
    let tasks = result["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    let (model, data) = (place.arg("outputs"), data().display().to_string());
    let eval = transmla(&[
        "eval",
        "--model-path",
        "embedded",
        "--against",
        &model,
        "--tasks",
        "piqa,arc_easy",
        "--limit",
        "6",
        "--tasks-data",
        &data,
        "--json",
    ]);
    assert_eq!(eval.json()["tasks"], result["tasks"]);
    assert!(result["timings"]["ask_original"].is_number() && result["timings"]["ask_mla"].is_number());

    let read = |file: &str| std::fs::read_to_string(place.path("outputs").join(file)).unwrap();
    let accuracy = tasks[0]["against"]["figures"][0]["value"].as_f64().unwrap();
    for file in ["README.md", "report.html"] {
        let text = read(file);
        assert!(
            text.contains("piqa") && text.contains(&format!("{accuracy:.4}")),
            "{text}"
        );
    }
    // The recipe asks the same again; its data lies elsewhere.
    let recipe = read("transmla.toml");
    assert!(recipe.contains("[tasks]") && !recipe.contains(&data), "{recipe}");
    let again = [
        "convert",
        "--recipe",
        &place.arg("outputs/transmla.toml"),
        "--model-path",
        &place.arg("model"),
        "--save-path",
        &place.arg("again"),
        "--tasks-data",
        &data,
        "--json",
    ];
    assert_eq!(transmla(&again).json()["tasks"], result["tasks"]);
}

#[test]
fn a_sweep_asks_every_model() {
    let place = Workplace::new();
    let text = place.convert(&[]);
    // What follows the name, the folder and the model.
    let text = text[5..].iter().filter(|word| !["8", "28"].contains(&word.as_str()));
    let text = text
        .filter(|word| !["--qk-mqa-dim", "--kv-lora-rank"].contains(&word.as_str()))
        .cloned();
    let words = [
        "sweep",
        "--model-path",
        &place.arg("model"),
        "--budgets",
        "8+28,8+12",
        "--methods",
        "transmla",
    ];
    let output = ["--output".to_owned(), place.arg("sweep")];
    let words = words.iter().map(|word| (*word).to_owned());
    let all: Vec<String> = words.chain(text).chain(output).chain(asked(&[])).collect();
    let told = transmla(&all).succeeds();
    assert!(
        told.contains("transmla at 8 + 12") && told.contains("arc_easy"),
        "{told}"
    );
    let figures: Value = serde_json::from_slice(&std::fs::read(place.path("sweep/sweep.json")).unwrap()).unwrap();
    let models = figures["models"].as_array().unwrap();
    let original = |model: &Value| model["tasks"][0]["figures"].clone();
    assert_eq!(models.len(), 2);
    assert_eq!(original(&models[0]), original(&models[1]));
    assert_ne!(models[0]["tasks"][0]["against"], models[1]["tasks"][0]["against"]);
    let page = std::fs::read_to_string(place.path("sweep/report.html")).unwrap();
    assert!(page.contains("Accuracy on tasks"), "{page}");
}

#[test]
fn tasks_of_a_conversion_are_checked_before_any_work() {
    let place = Workplace::new();
    for (more, says) in [
        (&["--tasks", "arc_esy", "--dry-run"][..], &["arc_esy", "arc_easy"][..]),
        (
            &["--tasks", "piqa", "--apply-chat-template", "--dry-run"],
            &["chat template"],
        ),
        (&["--limit", "5", "--dry-run"], &["--limit", "--tasks"]),
        (
            &["--tasks", "piqa", "--tasks-data", "/nowhere"],
            &["/nowhere", "--tasks-data"],
        ),
    ] {
        transmla(&place.convert(more)).fails(1, says);
        assert!(!place.path("outputs").exists());
    }
    let told = transmla(&place.convert(&["--tasks", "piqa", "--num-fewshot", "2", "--dry-run"])).succeeds();
    assert!(told.contains("piqa, 2 examples"), "{told}");
}
