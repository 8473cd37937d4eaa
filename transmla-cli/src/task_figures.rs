//! Accuracy on tasks, for people.

use transmla_eval::tasks::{Figure, TaskRow};
use transmla_report::{Score, TaskFigures};

/// A figure with its standard error.
pub fn score(figure: &Figure) -> String {
    let show = |value: f64| match value.abs() {
        large if large >= 1e5 => format!("{value:.3e}"),
        _ => format!("{value:.4}"),
    };
    match figure.error {
        Some(error) => format!("{} ± {}", show(figure.value), show(error)),
        None => show(figure.value),
    }
}

/// What an original and its conversion have on tasks, in lines. Parts of groups are left out.
pub fn lines(rows: &[TaskRow]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| !row.is_part) {
        let Some(converted) = &row.against else { continue };
        for (index, (before, after)) in row.figures.iter().zip(&converted.figures).enumerate() {
            let task = if index == 0 { row.task.as_str() } else { "" };
            let metric = before.metric.name();
            lines.push(format!("{task:16} {metric:10} {} -> {}", score(before), score(after)));
        }
        let kl = converted.kl.map_or(String::new(), |kl| format!(", KL {kl:.4} nats"));
        let (records, lost, gained) = (row.records, converted.lost, converted.gained);
        lines.push(format!("{:16} of {records} lost {lost}, gained {gained}{kl}", ""));
    }
    lines
}

/// The same for a page.
pub fn for_page(rows: &[TaskRow]) -> Vec<TaskFigures> {
    let of_row = |row: &TaskRow| {
        let converted = row.against.as_ref()?;
        let score = |figure: &Figure| Score {
            value: figure.value,
            standard_error: figure.error,
        };
        let pairs = row.figures.iter().zip(&converted.figures);
        let figures = pairs.map(|(before, after)| TaskFigures {
            task: row.task.clone(),
            records: row.records,
            metric: before.metric.name().to_owned(),
            original: score(before),
            converted: score(after),
            lost: converted.lost,
            gained: converted.gained,
            kl: converted.kl,
        });
        Some(figures.collect::<Vec<_>>())
    };
    let shown = rows.iter().filter(|row| !row.is_part);
    shown.filter_map(of_row).flatten().collect()
}
