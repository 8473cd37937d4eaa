//! Scores of tasks by `transmla eval --tasks`: on items made from a seed, and on the last words of real text.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::catalogue::{Setup, Text};
use super::last_words;
use crate::cargo::root;
use crate::json::read_json;

/// Tasks with made items, and the metric of each that is reported.
pub const MADE: &[(&str, &str)] = &[
    ("arc_easy", "acc"),
    ("arc_challenge", "acc_norm"),
    ("hellaswag", "acc_norm"),
    ("piqa", "acc"),
    ("winogrande", "acc"),
    ("openbookqa", "acc_norm"),
    ("boolq", "acc"),
    ("lambada_openai", "acc"),
];

/// Names of the last words of text like that of the calibration, and of text unlike it.
pub const LAST_WORDS: [&str; 2] = ["like", "unlike"];

/// The task that last words are scored as.
const GUESS: (&str, &str) = ("lambada_openai", "acc");

/// Share of the items that are right.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    pub value: f64,
    pub stderr: f64,
    pub items: usize,
}

impl Score {
    /// In percent, with its standard error.
    pub fn percent(&self) -> String {
        format!("{:.0} ± {:.0}", 100.0 * self.value, 100.0 * self.stderr)
    }
}

/// Scores by task, and of [`LAST_WORDS`].
pub type Scores = BTreeMap<String, Score>;

/// Scores a model.
#[derive(Debug)]
pub struct Scorer<'a> {
    pub binary: &'a Path,
    /// A folder for texts and results.
    pub folder: &'a Path,
    /// At most this many items of each task.
    pub limit: usize,
}

impl Scorer<'_> {
    /// Scores a model on all tasks; on last words only where the texts are files or folders.
    pub fn score(&self, setup: &Setup, model: &OsStr) -> anyhow::Result<Scores> {
        let made = root().join("transmla-eval/tests/tasks/data");
        let mut scores = self.run(model, MADE, &made)?;
        for (name, text) in LAST_WORDS.iter().zip([&setup.like, &setup.unlike]) {
            if Path::new(&text.dataset).exists() {
                let found = self.run(model, &[GUESS], &self.passages(name, text)?)?;
                scores.extend(found.into_values().map(|score| ((*name).to_owned(), score)));
            }
        }
        Ok(scores)
    }

    /// A folder of datasets with the last words of a text in the place of LAMBADA.
    fn passages(&self, name: &str, text: &Text) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        let file = folder.join("EleutherAI/lambada_openai/data/lambada_test.jsonl");
        if !file.exists() {
            last_words::write(Path::new(&text.dataset), self.limit, &file)?;
        }
        Ok(folder)
    }

    fn run(&self, model: &OsStr, tasks: &[(&str, &str)], data: &Path) -> anyhow::Result<Scores> {
        // The program overwrites nothing.
        let results = tempfile::tempdir_in(self.folder).context("cannot create a folder for results")?;
        let file = results.path().join("scores.json");
        let names: Vec<&str> = tasks.iter().map(|(task, _)| *task).collect();
        let mut command = Command::new(self.binary);
        command.arg("eval").arg("--model-path").arg(model);
        command.args(["--tasks", &names.join(","), "-q", "--limit", &self.limit.to_string()]);
        command.arg("--tasks-data").arg(data).arg("--output").arg(&file);
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} failed: {}", said.trim_end());
        read(&file, tasks)
    }
}

/// Reads results in the harness's layout.
pub fn read(file: &Path, tasks: &[(&str, &str)]) -> anyhow::Result<Scores> {
    #[derive(Deserialize)]
    struct Results {
        results: BTreeMap<String, Map<String, Value>>,
    }
    let found: Results = read_json(file)?;
    let score = |(task, metric): &(&str, &str)| {
        let metrics = found
            .results
            .get(*task)
            .with_context(|| format!("no results of {task}"))?;
        let number = |key: String| metrics.get(&key).and_then(Value::as_f64);
        let score = Score {
            value: number(format!("{metric},none")).with_context(|| format!("no {metric} of {task}"))?,
            stderr: number(format!("{metric}_stderr,none")).unwrap_or(0.0),
            items: number("sample_len".into()).with_context(|| format!("no sample_len of {task}"))? as usize,
        };
        Ok(((*task).to_owned(), score))
    };
    tasks.iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_by_task_and_metric() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.json");
        let text = r#"{"results": {"piqa": {"acc,none": 0.5, "acc_norm,none": 0.75, "acc_norm_stderr,none": 0.1, "sample_len": 20}}}"#;
        std::fs::write(&file, text).unwrap();
        let scores = read(&file, &[("piqa", "acc_norm")]).unwrap();
        let score = Score {
            value: 0.75,
            stderr: 0.1,
            items: 20,
        };
        assert_eq!(scores, Scores::from([("piqa".into(), score)]));
        assert!(read(&file, &[("piqa", "perplexity")]).is_err());
        assert!(read(&file, &[("boolq", "acc")]).is_err());
    }
}
