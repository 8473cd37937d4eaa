//! Figures from log-likelihoods.

use serde::Serialize;
use transmla_core::LayeredModel;

use crate::error::EvalError;
use crate::likelihood::{Likelihood, ScoringOptions, log_likelihoods};
use crate::observer::Observer;
use crate::tasks::catalogue::{Part, Selected};
use crate::tasks::error::TaskError;
use crate::tasks::prepare::PreparedTasks;
use crate::tasks::prepared::{PreparedItem, PreparedTask};
use crate::tasks::spec::{Mean, Metric};
use crate::tasks::statistics::{mean, perplexity_error, pooled_error, standard_error};

/// A figure, with its standard error where there is more than one value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
    /// Its standard error.
    #[serde(rename = "standard_error")]
    pub error: Option<f64>,
}

/// What a model gave for a record.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredItem {
    /// Of each choice.
    pub likelihoods: Vec<Likelihood>,
    /// One value for each metric of the task.
    pub values: Vec<f64>,
}

/// What a model gave for a task.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredTask {
    /// Name of the task.
    pub name: String,
    /// Figures, in the order of the task's metrics.
    pub figures: Vec<Figure>,
    /// Records, in their order.
    pub items: Vec<ScoredItem>,
}

/// Several tasks as one.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredGroup {
    /// `mmlu`, `mmlu_stem`.
    pub name: String,
    /// `stem`.
    pub alias: String,
    /// Names of what it is made of: tasks, or groups of tasks.
    pub members: Vec<String>,
    /// Records of all of them.
    pub records: usize,
    /// Figures.
    pub figures: Vec<Figure>,
    /// Version of the tasks.
    pub version: f64,
}

/// What a model gave.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskScores {
    /// By task, as [`PreparedTasks::tasks`].
    pub tasks: Vec<ScoredTask>,
    /// Groups, the whole before its parts.
    pub groups: Vec<ScoredGroup>,
}

impl TaskScores {
    /// The tasks that a group is made of, those of its groups included.
    pub fn members_of<'a>(&'a self, group: &'a ScoredGroup) -> Vec<&'a str> {
        let of = |name: &'a String| match self
            .groups
            .iter()
            .find(|inner| inner.name == *name && inner.name != group.name)
        {
            Some(inner) => inner.members.iter().map(String::as_str).collect(),
            None => vec![name.as_str()],
        };
        group.members.iter().flat_map(of).collect()
    }
}

impl PreparedTasks {
    /// Asks a model everything.
    ///
    /// # Errors
    /// [`TaskError::Eval`] if the model cannot be read or run, or its output is not finite.
    pub fn score(
        &self,
        model: &dyn LayeredModel,
        options: &ScoringOptions,
        observer: &mut dyn Observer,
    ) -> Result<TaskScores, TaskError> {
        let items = self.tasks.iter().flat_map(|task| &task.items);
        let requests: Vec<_> = items.flat_map(|item| item.requests.iter().cloned()).collect();
        let found = log_likelihoods(model, &requests, options, observer).map_err(|error| self.located(error))?;
        let mut found = found.into_iter();
        let tasks: Vec<ScoredTask> = self.tasks.iter().map(|task| score(task, &mut found)).collect();
        let groups = self
            .selected
            .iter()
            .flat_map(|selected| groups(selected, &tasks))
            .collect();
        Ok(TaskScores { tasks, groups })
    }

    /// The error of a request, with its task and record.
    fn located(&self, error: EvalError) -> TaskError {
        let EvalError::Request { index, problem } = &error else {
            return error.into();
        };
        let mut left = *index;
        for task in &self.tasks {
            for (record, item) in task.items.iter().enumerate() {
                if left < item.requests.len() {
                    return TaskError::Request {
                        task: task.part.name.clone(),
                        record,
                        problem: problem.clone(),
                    };
                }
                left -= item.requests.len();
            }
        }
        error.into()
    }
}

fn score(task: &PreparedTask, found: &mut dyn Iterator<Item = Likelihood>) -> ScoredTask {
    let metrics = &task.part.spec.metrics;
    let item = |item: &PreparedItem| {
        let likelihoods: Vec<Likelihood> = found.take(item.requests.len()).collect();
        let values = metrics
            .iter()
            .map(|metric| value(*metric, item, &likelihoods))
            .collect();
        ScoredItem { likelihoods, values }
    };
    let items: Vec<ScoredItem> = task.items.iter().map(item).collect();
    let figure = |(index, metric): (usize, &Metric)| {
        let values: Vec<f64> = items.iter().map(|item| item.values[index]).collect();
        match metric {
            Metric::Perplexity => Figure {
                metric: *metric,
                value: (-mean(&values)).exp(),
                error: perplexity_error(&values),
            },
            Metric::Acc | Metric::AccNorm => Figure {
                metric: *metric,
                value: mean(&values),
                error: standard_error(&values),
            },
        }
    };
    ScoredTask {
        name: task.part.name.clone(),
        figures: metrics.iter().enumerate().map(figure).collect(),
        items,
    }
}

/// What a record counts for.
fn value(metric: Metric, item: &PreparedItem, found: &[Likelihood]) -> f64 {
    let right = |choice: Option<usize>| f64::from(u8::from(choice.is_some() && choice == item.gold));
    match (metric, found) {
        (Metric::Perplexity, _) => found.first().map_or(f64::NAN, |found| found.log_likelihood),
        // A single continuation is right if it is what the model would write.
        (Metric::Acc, [only]) => f64::from(u8::from(only.is_greedy)),
        (Metric::Acc, _) => right(largest(found.iter().map(|found| found.log_likelihood))),
        (Metric::AccNorm, _) => {
            let per_character = |(found, length): (&Likelihood, &usize)| found.log_likelihood / *length as f64;
            right(largest(found.iter().zip(&item.lengths).map(per_character)))
        }
    }
}

/// The first of the largest.
fn largest(values: impl Iterator<Item = f64>) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in values.enumerate() {
        if best.is_none_or(|(_, best)| value > best) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// The groups of what was selected.
fn groups(selected: &Selected, tasks: &[ScoredTask]) -> Vec<ScoredGroup> {
    let Selected::Parts { name, spec, groups } = selected else {
        return Vec::new();
    };
    let of = |name: &str, alias: &str, members: Vec<String>, parts: Vec<&ScoredTask>| ScoredGroup {
        name: name.to_owned(),
        alias: alias.to_owned(),
        members,
        records: parts.iter().map(|part| part.items.len()).sum(),
        figures: (0..spec.metrics.len())
            .map(|index| pooled(spec.mean, index, &parts))
            .collect(),
        version: spec.version,
    };
    let find = |name: &String| tasks.iter().find(|task| task.name == *name);
    let subgroup = |(group, alias, parts): &(String, String, Vec<Part>)| {
        let names: Vec<String> = parts
            .iter()
            .map(|part: &crate::tasks::catalogue::Part| part.name.clone())
            .collect();
        let members = names.iter().filter_map(find).collect();
        of(group, if alias.is_empty() { group } else { alias }, names, members)
    };
    if let [only] = groups.as_slice()
        && only.0 == *name
    {
        return vec![subgroup(only)];
    }
    let all = groups.iter().flat_map(|(.., parts)| parts);
    let all: Vec<&ScoredTask> = all.filter_map(|part| find(&part.name)).collect();
    let names = groups.iter().map(|(name, ..)| name.clone()).collect();
    std::iter::once(of(name, name, names, all))
        .chain(groups.iter().map(subgroup))
        .collect()
}

/// A figure of several tasks as one.
fn pooled(kind: Mean, index: usize, parts: &[&ScoredTask]) -> Figure {
    let figures = parts.iter().map(|part| (part.figures[index], part.items.len()));
    let total: usize = parts.iter().map(|part| part.items.len()).sum();
    let count = parts.len() as f64;
    let value = match kind {
        Mean::OfRecords => {
            figures
                .clone()
                .map(|(figure, records)| figure.value * records as f64)
                .sum::<f64>()
                / total as f64
        }
        Mean::OfParts => figures.clone().map(|(figure, _)| figure.value).sum::<f64>() / count,
    };
    let errors: Option<Vec<(f64, usize)>> = figures
        .clone()
        .map(|(figure, records)| figure.error.map(|error| (error, records)))
        .collect();
    Figure {
        metric: parts.first().map_or(Metric::Acc, |part| part.figures[index].metric),
        value,
        error: errors.map(|errors| match kind {
            Mean::OfRecords => pooled_error(&errors),
            Mean::OfParts => errors.iter().map(|(error, _)| error * error).sum::<f64>().sqrt() / count,
        }),
    }
}
