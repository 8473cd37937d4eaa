//! Accuracy on tasks, as tables of a page.

use crate::html::table;
use crate::sweep::SweepReport;
use crate::tasks::TaskFigures;

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
