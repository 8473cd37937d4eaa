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
    .fails(2, &["--num-fewshot"]);
}
