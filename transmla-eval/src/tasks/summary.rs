//! What was found on tasks, a row each.

use serde::Serialize;

use crate::tasks::compare::Flips;
use crate::tasks::prepare::PreparedTasks;
use crate::tasks::score::{Figure, TaskScores};

/// What was found on a task or a group of tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskRow {
    /// Its name: `mmlu_anatomy`.
    pub task: String,
    /// Its name within its group: `anatomy`.
    pub alias: String,
    /// Records that were asked.
    pub records: usize,
    /// Examples in front of each question; nothing for groups.
    pub shots: Option<usize>,
    /// Figures of the model.
    pub figures: Vec<Figure>,
    /// What another model has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<TaskComparison>,
    /// Whether it is part of a group, whose figures stand for it where people read.
    #[serde(skip)]
    pub is_part: bool,
}

/// What another model has on the same records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskComparison {
    /// Its figures, in the order of the first model's.
    pub figures: Vec<Figure>,
    /// Records that are right by the first model and wrong by this one.
    pub lost: usize,
    /// Records that are wrong by the first model and right by this one.
    pub gained: usize,
    /// Mean over records of KL(first ‖ this) of the choices' probabilities, in nats; nothing for tasks without choices.
    pub kl: Option<f64>,
}

impl PreparedTasks {
    /// A row for every group, then one for every task, with what another model has if there is one.
    pub fn rows(&self, scores: &TaskScores, others: Option<&TaskScores>) -> Vec<TaskRow> {
        let flips = others.map(|others| self.compare(scores, others)).unwrap_or_default();
        let mut found = Vec::new();
        for group in &scores.groups {
            let inside = |flips: &&Flips| scores.members_of(group).contains(&flips.task.as_str());
            let parts: Vec<&Flips> = flips.iter().filter(inside).collect();
            let other = others.and_then(|others| others.groups.iter().find(|other| other.name == group.name));
            found.push(TaskRow {
                task: group.name.clone(),
                alias: group.alias.clone(),
                records: group.records,
                shots: None,
                figures: group.figures.clone(),
                against: other.map(|other| comparison(&other.figures, &parts)),
                is_part: false,
            });
        }
        for (index, (task, scored)) in self.tasks.iter().zip(&scores.tasks).enumerate() {
            let other = others.map(|others| &others.tasks[index]);
            let parts: Vec<&Flips> = flips.get(index).into_iter().collect();
            found.push(TaskRow {
                task: scored.name.clone(),
                alias: task.part.alias.clone(),
                records: scored.items.len(),
                shots: Some(task.shots),
                figures: scored.figures.clone(),
                against: other.map(|other| comparison(&other.figures, &parts)),
                is_part: scores.groups.iter().any(|group| group.members.contains(&scored.name)),
            });
        }
        found
    }
}

fn comparison(figures: &[Figure], parts: &[&Flips]) -> TaskComparison {
    let records: usize = parts.iter().map(|part| part.records).sum();
    let kl = |part: &&Flips| part.kl.map(|kl| kl * part.records as f64);
    let sum: Option<f64> = parts.iter().map(kl).sum();
    TaskComparison {
        figures: figures.to_vec(),
        lost: parts.iter().map(|part| part.lost).sum(),
        gained: parts.iter().map(|part| part.gained).sum(),
        kl: sum.filter(|_| records > 0).map(|sum| sum / records as f64),
    }
}
