//! Two models on the same records.

use crate::tasks::prepare::PreparedTasks;
use crate::tasks::score::{ScoredItem, TaskScores};

/// What changed on a task from a first model to a second.
#[derive(Debug, Clone, PartialEq)]
pub struct Flips {
    /// Name of the task.
    pub task: String,
    /// Records.
    pub records: usize,
    /// Right by the first, wrong by the second.
    pub lost: usize,
    /// Wrong by the first, right by the second.
    pub gained: usize,
    /// Mean over records of KL(first ‖ second) of the choices' probabilities, normalised to sum to 1, in nats; nothing for tasks without
    /// choices.
    pub kl: Option<f64>,
}

impl PreparedTasks {
    /// Compares what two models gave for these tasks, by accuracy.
    pub fn compare(&self, first: &TaskScores, second: &TaskScores) -> Vec<Flips> {
        let pairs = self.tasks.iter().zip(first.tasks.iter().zip(&second.tasks));
        pairs
            .map(|(task, (first, second))| {
                let metrics = &task.part.spec.metrics;
                let acc = metrics.iter().position(|metric| metric.name() == "acc");
                let right = |item: &ScoredItem| acc.is_some_and(|acc| item.values[acc] == 1.0);
                let both = || first.items.iter().zip(&second.items);
                let terms: Vec<f64> = both().filter_map(|(first, second)| divergence(first, second)).collect();
                Flips {
                    task: task.part.name.clone(),
                    records: first.items.len(),
                    lost: both().filter(|(first, second)| right(first) && !right(second)).count(),
                    gained: both().filter(|(first, second)| !right(first) && right(second)).count(),
                    kl: (!terms.is_empty()).then(|| terms.iter().sum::<f64>() / terms.len() as f64),
                }
            })
            .collect()
    }
}

/// KL of the choices' probabilities; nothing for a single one.
fn divergence(first: &ScoredItem, second: &ScoredItem) -> Option<f64> {
    if first.likelihoods.len() < 2 {
        return None;
    }
    let (p, q) = (logarithms(first), logarithms(second));
    Some(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum())
}

/// Logarithms of the choices' shares of their common probability.
fn logarithms(item: &ScoredItem) -> Vec<f64> {
    let values = item.likelihoods.iter().map(|found| found.log_likelihood);
    let largest = values.clone().fold(f64::MIN, f64::max);
    let total = values.clone().map(|value| (value - largest).exp()).sum::<f64>().ln() + largest;
    values.map(|value| value - total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::likelihood::Likelihood;

    #[test]
    fn shares_of_choices_are_compared() {
        let item = |values: &[f64]| ScoredItem {
            likelihoods: values
                .iter()
                .map(|value| Likelihood {
                    log_likelihood: *value,
                    is_greedy: false,
                })
                .collect(),
            values: Vec::new(),
        };
        // Shares of a half each, against a quarter and three quarters.
        let (even, odd) = (item(&[-900.0, -900.0]), item(&[-3.0, -3.0 + 3f64.ln()]));
        let expected = 0.5 * (2f64.ln() + (2.0 / 3.0f64).ln());
        assert!((divergence(&even, &odd).unwrap() - expected).abs() < 1e-12);
        assert_eq!(divergence(&even, &even), Some(0.0));
        assert_eq!(divergence(&item(&[-1.0]), &item(&[-2.0])), None);
    }
}
