//! `cargo xtask interop --tasks`: tasks scored by lm-evaluation-harness and by `transmla eval --tasks`, item by item.

mod compare;
mod scored;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cargo::root;
use scored::{Choice, Recording, Run, Scored};

const MAKE: &str = include_str!("tasks/make.py");
const HARNESS: &str = include_str!("tasks/harness.py");

/// What the scripts need beside torch and transformers.
pub const PACKAGES: &[&str] = &["lm-eval==0.4.13", "accelerate", "peft", "pyarrow"];

const TASKS: &[&str] = &[
    "arc_easy",
    "arc_challenge",
    "hellaswag",
    "piqa",
    "winogrande",
    "openbookqa",
    "boolq",
    "mmlu",
    "mmlu_cloze",
    "lambada_openai",
    "lambada_standard",
];

/// Tasks with examples in front of every item: all ways of choosing examples.
const FEW_SHOT_TASKS: &[&str] = &[
    "arc_easy",
    "arc_challenge",
    "hellaswag",
    "piqa",
    "winogrande",
    "openbookqa",
    "boolq",
    "mmlu_anatomy",
    "mmlu_us_foreign_policy",
    "lambada_openai",
    "lambada_standard",
];

/// Tasks of a model with a chat template: several kinds of request.
const CHAT_TASKS: &[&str] = &["arc_easy", "winogrande", "mmlu_anatomy", "lambada_openai"];

/// Items of each task where requests are long.
const FEW_SHOT_ITEMS: usize = 12;

/// The runs of a model.
fn runs_of(has_template: bool) -> Vec<Run> {
    let few = Some(FEW_SHOT_ITEMS);
    let mut runs = vec![Run::new(TASKS, 0, None, false), Run::new(FEW_SHOT_TASKS, 5, few, false)];
    if has_template {
        runs.extend([0, 2].map(|shots| Run::new(CHAT_TASKS, shots, few, true)));
    }
    runs
}

/// Scores stories260K and, if given, another model with both programs.
///
/// # Errors
/// A program fails, or their results differ.
pub fn run(python: &Path, binary: &Path, smollm2: Option<&Path>, record: bool) -> anyhow::Result<()> {
    let place = root().join("transmla-eval/tests/tasks");
    let data = place.join("data");
    if record {
        remake(python, &data)?;
    }
    let mut failures = Vec::new();
    let models = [("stories260k", Some(root().join("transmla-cli/models/stories260k")))];
    let models = models
        .into_iter()
        .chain([("smollm2-135m", smollm2.map(Path::to_path_buf))]);
    for (name, folder) in models {
        let Some(folder) = folder else { continue };
        let folder = folder
            .canonicalize()
            .with_context(|| format!("cannot find {}", folder.display()))?;
        let recording = by_harness(python, &folder, &data)?;
        if record && name == "stories260k" {
            let path = place.join("recorded").join(format!("{name}.json"));
            fs::create_dir_all(place.join("recorded")).context("cannot create the folder of recordings")?;
            let text = serde_json::to_string(&recording)? + "\n";
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("{name}, lm-eval {}", recording.versions["lm_eval"]);
        compare::print_head();
        for theirs in &recording.runs {
            let ours = by_us(binary, &folder, &data, &theirs.run)?;
            failures.extend(
                compare::report(theirs, &ours)
                    .into_iter()
                    .map(|fault| format!("{name}: {fault}")),
            );
        }
    }
    ensure!(failures.is_empty(), "not as the harness:\n{}", failures.join("\n"));
    Ok(())
}

/// Writes the datasets anew.
fn remake(python: &Path, data: &Path) -> anyhow::Result<()> {
    if data.exists() {
        fs::remove_dir_all(data).with_context(|| format!("cannot remove {}", data.display()))?;
    }
    let status = Command::new(python)
        .args(["-c", MAKE])
        .arg(data)
        .status()
        .context("cannot start python")?;
    ensure!(status.success(), "making the datasets failed ({status})");
    Ok(())
}

fn by_harness(python: &Path, model: &Path, data: &Path) -> anyhow::Result<Recording> {
    let config = fs::read_to_string(model.join("tokenizer_config.json")).unwrap_or_default();
    let has_template = config.contains("chat_template") || model.join("chat_template.jinja").exists();
    let runs = runs_of(has_template);
    let output = Command::new(python)
        .args(["-c", HARNESS])
        .arg(model)
        .arg(json!(runs).to_string())
        .current_dir(data)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start python")?;
    ensure!(output.status.success(), "lm-eval failed ({})", output.status);
    let lines = String::from_utf8_lossy(&output.stdout);
    let mut lines = lines.lines();
    let versions = lines.next().context("lm-eval said nothing")?;
    let recording = Recording {
        versions: serde_json::from_str(versions).with_context(|| format!("not JSON: {versions}"))?,
        runs: lines
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .context("what lm-eval gave is not as expected")?,
    };
    let given: Vec<&Run> = recording.runs.iter().map(|scored| &scored.run).collect();
    ensure!(
        given.iter().copied().eq(&runs),
        "lm-eval did {} of {} runs",
        given.len(),
        runs.len()
    );
    Ok(recording)
}

fn by_us(binary: &Path, model: &Path, data: &Path, run: &Run) -> anyhow::Result<Scored> {
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut command = Command::new(binary);
    command.arg("eval").arg("--model-path").arg(model);
    command.arg("--tasks").arg(run.tasks.join(","));
    command.arg("--tasks-data").arg(data);
    command.args(["--num-fewshot", &run.num_fewshot.to_string(), "--log-samples", "-q"]);
    command.arg("--output").arg(folder.path());
    if let Some(limit) = run.limit {
        command.args(["--limit", &limit.to_string()]);
    }
    if run.chat {
        command.arg("--apply-chat-template");
    }
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim_end());
    read_output(folder.path(), run)
}

/// Reads a folder as `lm_eval --output_path --log_samples` leaves it.
fn read_output(folder: &Path, run: &Run) -> anyhow::Result<Scored> {
    #[derive(Deserialize)]
    struct Results {
        results: BTreeMap<String, Map<String, Value>>,
    }
    let mut results = None;
    let mut items = BTreeMap::new();
    for entry in fs::read_dir(folder).context("cannot list the output")? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if name.starts_with("results") {
            let found: Results = serde_json::from_str(&text).with_context(|| name.clone())?;
            results = Some(found.results);
        } else if let Some(task) = name.strip_prefix("samples_") {
            // The rest of the name is the date.
            let task = task.rsplit_once('_').map_or(task, |(task, _)| task);
            let found: anyhow::Result<Vec<_>> = text.lines().map(item).collect();
            items.insert(task.to_owned(), found.with_context(|| name.clone())?);
        }
    }
    Ok(Scored {
        run: run.clone(),
        results: results.context("there is no results.json")?,
        items,
    })
}

/// The choices of one line of a file of samples, where numbers are written as text.
fn item(line: &str) -> anyhow::Result<Vec<Choice>> {
    #[derive(Deserialize)]
    struct Sample {
        filtered_resps: Vec<(String, String)>,
    }
    let sample: Sample = serde_json::from_str(line)?;
    let choice = |(ll, greedy): (String, String)| Ok((ll.parse()?, greedy == "True"));
    sample.filtered_resps.into_iter().map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_as_the_harness_writes_them() {
        let line = r#"{"doc_id": 0, "filtered_resps": [["-12.5", "False"], ["-0.25", "True"]], "acc": 1.0}"#;
        assert_eq!(item(line).unwrap(), [(-12.5, false), (-0.25, true)]);
        assert!(item(r#"{"filtered_resps": [["much", "False"]]}"#).is_err());
        let folder = tempfile::tempdir().unwrap();
        let date = "2026-01-01T00-00-00.000001";
        fs::write(folder.path().join(format!("samples_arc_easy_{date}.jsonl")), line).unwrap();
        let run = Run::new(&["arc_easy"], 0, None, false);
        assert!(read_output(folder.path(), &run).is_err());
        let results = r#"{"results": {"arc_easy": {"acc,none": 1.0}}}"#;
        fs::write(folder.path().join(format!("results_{date}.json")), results).unwrap();
        let scored = read_output(folder.path(), &run).unwrap();
        assert_eq!(scored.items["arc_easy"].len(), 1);
        assert_eq!(scored.results["arc_easy"]["acc,none"], 1.0);
    }
}
