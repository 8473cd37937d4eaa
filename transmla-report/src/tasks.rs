//! Accuracy on tasks.

use serde::{Deserialize, Serialize};

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
    pub(crate) fn show(&self) -> String {
        match self.standard_error {
            Some(error) => format!("{:.4} ± {error:.4}", self.value),
            None => format!("{:.4}", self.value),
        }
    }
}
