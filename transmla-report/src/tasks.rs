//! Accuracy on tasks.

use serde::{Deserialize, Serialize};

use crate::html::table;
use crate::sweep::SweepReport;

/// A figure of a task, of a model and its conversion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// The task.
    pub task: String,
    /// Records that both were asked.
    pub records: usize,
    /// What the figure is: `acc`, `acc_norm`.
    pub metric: String,
    /// Of the original.
    pub original: Score,
    /// Of the result.
    pub converted: Score,
    /// Records that are right by the original and wrong by the result.
    pub lost: usize,
    /// Records that are wrong by the original and right by the result.
    pub gained: usize,
    /// Mean divergence of the result's answers from the original's, in nats.
    pub kl: Option<f64>,
}

/// A value and its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The value.
    pub value: f64,
    /// Its standard error, where there is one.
    pub standard_error: Option<f64>,
}

impl Score {
    fn show(&self) -> String {
        match self.standard_error {
            Some(error) => format!("{:.4} ± {error:.4}", self.value),
            None => format!("{:.4}", self.value),
        }
    }
}

/// Tasks of one conversion.
pub(crate) fn of_conversion(tasks: &[TaskFigures]) -> String {
    let columns = [
        "Task",
        "Records",
        "Metric",
        "Original",
        "Converted",
        "Lost",
        "Gained",
        "KL of answers",
    ];
    let row = |task: &TaskFigures| {
        vec![
            task.task.clone(),
            task.records.to_string(),
            task.metric.clone(),
            task.original.show(),
            task.converted.show(),
            task.lost.to_string(),
            task.gained.to_string(),
            task.kl.map_or_else(|| "–".into(), |kl| format!("{kl:.4}")),
        ]
    };
    table(&columns, &tasks.iter().map(row).collect::<Vec<_>>())
}

/// Tasks of all models of a sweep, a row for each figure; nothing where none were asked.
pub(crate) fn of_sweep(report: &SweepReport) -> Option<String> {
    let models = || {
        let points = report.curves.iter();
        points.flat_map(|curve| curve.points.iter().map(move |point| (curve, point)))
    };
    let (_, first) = models().find(|(_, point)| !point.tasks.is_empty())?;
    let mut columns = vec!["Task".to_owned(), "Metric".into(), "Original".into()];
    columns.extend(models().map(|(curve, point)| format!("{}, {} + {}", curve.label, point.rope_dim, point.rank)));
    let row = |task: &TaskFigures| {
        let same = |other: &&TaskFigures| (&other.task, &other.metric) == (&task.task, &task.metric);
        let mut row = vec![task.task.clone(), task.metric.clone(), task.original.show()];
        row.extend(models().map(|(_, point)| {
            let found = point.tasks.iter().find(same);
            found.map_or_else(|| "–".into(), |found| found.converted.show())
        }));
        row
    };
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    Some(table(&columns, &first.tasks.iter().map(row).collect::<Vec<_>>()))
}
