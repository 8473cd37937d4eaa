//! Tasks against what lm-evaluation-harness gave for the same datasets (`recorded`, see README.md).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};
use transmla_calib::TextTokenizer;
use transmla_core::burn::tensor::Device;
use transmla_core::{Decoder, LayeredModel, Residency};
use transmla_eval::tasks::{ModelText, PreparedTasks, RunFacts, TaskData, TaskError, TaskOptions, TaskScores, select};
use transmla_eval::{ScoringOptions, Silent};

/// Largest difference of two log-likelihoods of a choice.
const TOLERANCE: f64 = 1e-3;

/// Of metrics, as a share: the rounding of sums.
const METRIC_TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Recording {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    tasks: Vec<String>,
    num_fewshot: usize,
    limit: Option<usize>,
    results: BTreeMap<String, Map<String, Value>>,
    items: BTreeMap<String, Vec<Vec<(f64, bool)>>>,
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tasks")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k")
}

fn model() -> &'static Decoder {
    static MODEL: OnceLock<Decoder> = OnceLock::new();
    MODEL.get_or_init(|| Decoder::open(&folder(), &Device::flex(), Residency::Loaded).unwrap())
}

fn recorded() -> Vec<Run> {
    let text = std::fs::read(place().join("recorded/stories260k.json")).unwrap();
    serde_json::from_slice::<Recording>(&text).unwrap().runs
}

fn prepare(tasks: &[String], options: &TaskOptions) -> Result<PreparedTasks, TaskError> {
    let tokenizer = TextTokenizer::from_folder(&folder()).unwrap();
    let text = ModelText {
        tokenizer: &tokenizer,
        template: None,
        max_length: model().config().max_position_embeddings,
    };
    let data = TaskData {
        root: Some(place().join("data")),
        ..TaskData::default()
    };
    PreparedTasks::new(select(tasks)?, &data, &text, options)
}

fn names(tasks: &[&str]) -> Vec<String> {
    tasks.iter().map(|task| (*task).to_owned()).collect()
}

fn score(prepared: &PreparedTasks, options: &ScoringOptions) -> TaskScores {
    prepared.score(model(), options, &mut Silent).unwrap()
}

fn check_items(scores: &TaskScores, run: &Run) {
    assert!(!run.items.is_empty());
    for (name, expected) in &run.items {
        let found = scores.tasks.iter().find(|task| task.name == *name);
        let found = &found.unwrap_or_else(|| panic!("{name} is not there")).items;
        assert_eq!(found.len(), expected.len(), "{name}");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert_eq!(found.likelihoods.len(), expected.len(), "{name}, {index}");
            for (choice, (found, (expected, greedy))) in found.likelihoods.iter().zip(expected).enumerate() {
                let difference = (found.log_likelihood - expected).abs();
                assert!(
                    difference < TOLERANCE,
                    "{name}, {index}, {choice}: {found:?}, expected {expected}"
                );
                assert_eq!(found.is_greedy, *greedy, "{name}, {index}, {choice}");
            }
        }
    }
}

fn check_metrics(results: &Value, run: &Run) {
    for (name, expected) in &run.results {
        let found = &results["results"][name.as_str()];
        for (metric, expected) in expected.iter().filter(|(metric, _)| metric.ends_with(",none")) {
            let found = &found[metric.as_str()];
            let same = match (found.as_f64(), expected.as_f64()) {
                (Some(found), Some(expected)) => {
                    // Of a sum of log-likelihoods, each to the tolerance.
                    let tolerance = if metric.starts_with("perplexity") {
                        TOLERANCE
                    } else {
                        METRIC_TOLERANCE
                    };
                    (found - expected).abs() <= tolerance * found.abs().max(expected.abs())
                }
                _ => found == expected,
            };
            assert!(same, "{name}, {metric}: {found}, expected {expected}");
        }
    }
}

#[test]
fn every_choice_and_figure_is_the_harnesss() {
    for run in recorded() {
        let options = TaskOptions {
            num_fewshot: run.num_fewshot,
            limit: run.limit.map(|limit| limit as f64),
            ..TaskOptions::default()
        };
        let prepared = prepare(&run.tasks, &options).unwrap();
        let scores = score(&prepared, &ScoringOptions::default());
        check_items(&scores, &run);
        let json = prepared.results_json(&scores, &options, &RunFacts::default());
        check_metrics(&serde_json::from_str(&json).unwrap(), &run);
    }
}

#[test]
fn batches_and_sharing_change_nothing() {
    let options = TaskOptions {
        num_fewshot: 3,
        limit: Some(6.0),
        ..TaskOptions::default()
    };
    let prepared = prepare(
        &names(&["hellaswag", "winogrande", "mmlu_anatomy", "lambada_openai"]),
        &options,
    )
    .unwrap();
    let expected = score(&prepared, &ScoringOptions::default());
    let streamed = Decoder::open(&folder(), &Device::flex(), Residency::Streamed).unwrap();
    let scoring = ScoringOptions {
        batch_tokens: 100,
        state_bytes: 100_000,
        share: false,
        ..ScoringOptions::default()
    };
    let found = prepared.score(&streamed, &scoring, &mut Silent).unwrap();
    for (found, expected) in found.tasks.iter().zip(&expected.tasks) {
        for (found, expected) in found.items.iter().zip(&expected.items) {
            for (found, expected) in found.likelihoods.iter().zip(&expected.likelihoods) {
                assert!((found.log_likelihood - expected.log_likelihood).abs() < TOLERANCE);
            }
        }
    }
    let flips = prepared.compare(&found, &expected);
    assert_eq!(flips.len(), 4);
    for flip in flips {
        assert_eq!((flip.lost, flip.gained), (0, 0), "{}", flip.task);
        assert!(flip.kl.is_none_or(|kl| kl.abs() < 1e-6), "{flip:?}");
    }
}

#[test]
fn needles_are_the_same_again_and_of_the_length_asked_for() {
    let options = TaskOptions {
        needle_lengths: vec![128, 256],
        limit: Some(10.0),
        ..TaskOptions::default()
    };
    let prepared = prepare(&names(&["needle"]), &options).unwrap();
    let again = prepare(&names(&["needle"]), &options).unwrap();
    let of = |prepared: &PreparedTasks| -> Vec<String> {
        prepared
            .tasks
            .iter()
            .map(|task| format!("{} {:?}", task.part.name, task.items))
            .collect()
    };
    assert_eq!(of(&prepared), of(&again));
    for (task, length) in prepared.tasks.iter().zip([128, 256]) {
        assert_eq!(
            (task.part.name.as_str(), task.items.len()),
            (format!("needle_{length}").as_str(), 10)
        );
        for item in &task.items {
            let request = &item.requests[item.gold.unwrap()];
            let tokens = request.context.len() + request.continuation.len();
            assert!(tokens <= length && tokens > length - 60, "{tokens} of {length}");
            let (context, answer) = &item.texts[item.gold.unwrap()];
            assert!(context.contains(&format!(" is{answer}.")), "{context}");
        }
    }
    assert!(score(&prepared, &ScoringOptions::default()).tasks[0].figures[0].value >= 0.0);
    let long = TaskOptions {
        needle_lengths: vec![4096],
        ..TaskOptions::default()
    };
    assert!(
        prepare(&names(&["needle"]), &long)
            .unwrap_err()
            .to_string()
            .contains("64 to 512")
    );
}

#[test]
fn what_is_wrong_is_named() {
    let problem = |tasks: &[&str], options: TaskOptions| prepare(&names(tasks), &options).unwrap_err().to_string();
    let says = problem(
        &["mmlu_anatomy"],
        TaskOptions {
            num_fewshot: 50,
            ..TaskOptions::default()
        },
    );
    assert!(
        says.contains("mmlu_anatomy") && says.contains("50") && says.contains("dev"),
        "{says}"
    );
    let says = problem(
        &["arc_easy"],
        TaskOptions {
            apply_chat_template: true,
            ..TaskOptions::default()
        },
    );
    assert!(says.contains("chat template"), "{says}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let task = "[mine]\ndataset = \"allenai/openbookqa\"\nconfig = \"main\"\nsplit = \"test\"\nquestion = \"{{ stem }}\"\n\
                choices = \"choices.text\"\nanswer = \"0\"\nmetrics = [\"acc\"]\n";
    std::fs::write(&file, task).unwrap();
    let says = problem(&[file.to_str().unwrap()], TaskOptions::default());
    assert!(
        says.contains("mine, record 0") && says.contains("question_stem"),
        "{says}"
    );
    std::fs::write(&file, task.replace("stem }}", "question_stem }}")).unwrap();
    let prepared = prepare(&[file.to_str().unwrap().to_owned()], &TaskOptions::default()).unwrap();
    assert_eq!(prepared.tasks[0].part.name, "mine");
    assert!(prepared.requests() > 300);
}
