//! What a healing tells while it runs and when it is done.

use transmla_core::model::LossSums;

/// How far a model's predictions are from its original's and from a text, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Distance {
    /// Kullback-Leibler divergence of its predictions from the original's; with the original's largest logits alone, that of
    /// those and of all others together, which is no larger.
    pub kl: f64,
    /// Cross-entropy to the text: the logarithm of the perplexity.
    pub cross_entropy: f64,
}

impl From<LossSums> for Distance {
    fn from(sums: LossSums) -> Self {
        Self {
            kl: sums.kl / sums.rows.max(1) as f64,
            cross_entropy: sums.cross_entropy / sums.tokens.max(1) as f64,
        }
    }
}

/// A step of a healing that is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealStep {
    /// Steps that are done, this one included.
    pub done: usize,
    /// All steps.
    pub steps: usize,
    /// Tokens of the step.
    pub tokens: usize,
    /// On the text of the step, before it.
    pub distance: Distance,
    /// Length of the gradient, in units of the weights, before it was shortened.
    pub gradient: f64,
    /// Learning rate.
    pub rate: f64,
}

/// A look at the held-out text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealCheck {
    /// Steps that were done.
    pub done: usize,
    /// On the held-out text.
    pub distance: Distance,
}

/// The result of a healing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HealReport {
    /// On the held-out text after so many steps, from none on.
    pub checks: Vec<HealCheck>,
    /// Steps of the model that was kept: those with which the held-out text was predicted best.
    pub kept: usize,
    /// On the held-out text, of the files that were written, read back.
    pub written: Distance,
    /// Tokens that were trained on, seen again or not.
    pub tokens: u64,
    /// Numbers that moved.
    pub trained: u64,
}

impl HealReport {
    /// On the held-out text before the first step.
    pub fn before(&self) -> Distance {
        self.checks.first().map(|check| check.distance).unwrap_or_default()
    }
}
