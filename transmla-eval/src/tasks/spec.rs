//! What a task is: a table in TOML.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tasks::error::TaskError;

/// How a record becomes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One context, and each choice as a continuation.
    #[default]
    MultipleChoice,
    /// Each choice in the place of `_` in a sentence; what stands behind it is the continuation of all (WinoGrande's partial
    /// evaluation).
    FillIn,
    /// The last word of a text, after the text before it.
    LastWord,
}

/// Where the examples in front of a question are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FewshotRule {
    /// Drawn anew for every record.
    #[default]
    Sample,
    /// The first ones of the split, for all records.
    First,
}

/// A figure of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of records whose right choice is the most likely one, or whose last word is what the model would write.
    Acc,
    /// The same with log-likelihoods divided by the characters of the choices.
    AccNorm,
    /// Perplexity of the last words, as wholes.
    Perplexity,
}

impl Metric {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::Perplexity => "perplexity",
        }
    }

    /// Whether more is better.
    pub fn higher_is_better(self) -> bool {
        self != Self::Perplexity
    }
}

/// How figures of several parts become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mean {
    /// Every record counts alike.
    #[default]
    OfRecords,
    /// Every part counts alike.
    OfParts,
}

/// How a context and a continuation are cut into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairRule {
    /// As lm-evaluation-harness does.
    #[default]
    Harness,
    /// As lighteval does: special tokens always, and a continuation has at least one token of its own.
    Lighteval,
}

/// Choices or labels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Choices {
    /// A column that is a list: `choices.text`.
    Column(String),
    /// A template for each.
    Templates(Vec<String>),
}

/// Parts of a task that are averaged by themselves too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Group {
    /// Its name behind the task's: `stem` for `mmlu_stem`.
    pub name: String,
    /// Configurations of the dataset, each a part: `anatomy` for `mmlu_anatomy`.
    pub configs: Vec<String>,
}

/// A task, as a file with tasks has it.
///
/// Texts are templates (Jinja) with the columns of the record and `config`, and the filters of Jinja and `stripped`, `capitalized`,
/// `without_brackets` and `spaced`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TaskSpec {
    /// How a record becomes requests.
    #[serde(default)]
    pub kind: TaskKind,
    /// Dataset on the hub.
    pub dataset: String,
    /// Its configuration.
    pub config: Option<String>,
    /// Its revision.
    #[serde(default = "main_revision")]
    pub revision: String,
    /// The only file of it that is read.
    pub file: Option<String>,
    /// One part for every configuration, in groups.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The split that is evaluated on.
    pub split: String,
    /// The split that examples are from.
    pub fewshot_split: Option<String>,
    /// How they are chosen.
    #[serde(default)]
    pub fewshot: FewshotRule,
    /// Whether a record is left out where it would be an example for itself.
    #[serde(default)]
    pub fewshot_excludes_item: bool,
    /// In front of everything.
    #[serde(default)]
    pub description: String,
    /// What is asked; for [`TaskKind::FillIn`] the sentence, for [`TaskKind::LastWord`] the text.
    pub question: String,
    /// What may be answered.
    pub choices: Option<Choices>,
    /// What becomes of each choice, which the template knows as `choice`.
    pub choice: Option<String>,
    /// The right one: its index from 0, or its label.
    pub answer: Option<String>,
    /// Labels of the choices.
    pub labels: Option<Choices>,
    /// Between question and answer.
    #[serde(default = "space")]
    pub target_delimiter: String,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// How parts become one.
    #[serde(default)]
    pub mean: Mean,
    /// How texts are cut into tokens.
    #[serde(default)]
    pub pairs: PairRule,
    /// Version of the task.
    #[serde(default)]
    pub version: f64,
}

fn main_revision() -> String {
    "main".into()
}

fn space() -> String {
    " ".into()
}

impl TaskSpec {
    /// Checks what goes together.
    fn check(&self) -> Result<(), &'static str> {
        let choosing = self.kind != TaskKind::LastWord;
        if choosing != self.choices.is_some() || choosing != self.answer.is_some() {
            return Err(match choosing {
                true => "`choices` and `answer` are required",
                false => "a last word has neither `choices` nor `answer`",
            });
        }
        if self.metrics.is_empty() {
            return Err("`metrics` is empty; expected acc, acc_norm or perplexity");
        }
        let fits = |metric: &Metric| match metric {
            Metric::Acc => true,
            Metric::AccNorm => self.kind == TaskKind::MultipleChoice,
            Metric::Perplexity => self.kind == TaskKind::LastWord,
        };
        if !self.metrics.iter().all(fits) {
            return Err("`metrics`: acc_norm is for multiple-choice, perplexity for last-word");
        }
        if !self.groups.is_empty() && self.config.is_some() {
            return Err("`config` and `groups` exclude each other: parts have configurations of their own");
        }
        Ok(())
    }
}

/// Tasks by name from TOML; `file` is what errors name.
pub fn parse(file: &str, text: &str) -> Result<BTreeMap<String, TaskSpec>, TaskError> {
    let fail = |problem: String| TaskError::Definition {
        file: file.to_owned(),
        problem,
    };
    let tasks: BTreeMap<String, TaskSpec> =
        toml::from_str(text).map_err(|e| fail(e.to_string().trim_end().to_owned()))?;
    for (name, task) in &tasks {
        task.check()
            .map_err(|problem| fail(format!("task {name}: {problem}")))?;
    }
    Ok(tasks)
}
