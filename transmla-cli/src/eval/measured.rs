//! A perplexity as a result and as text.

use serde::Serialize;
use transmla_eval::{Perplexity, PositionPerplexity};

/// A perplexity, and nats per token.
#[derive(Debug, Serialize)]
pub struct Measured {
    perplexity: f64,
    mean_nll: f64,
    /// Of `mean_nll`; null for a single window.
    standard_error: Option<f64>,
}

impl Measured {
    pub fn perplexity(&self) -> String {
        match self.standard_error {
            Some(error) => format!("{:.4} ± {:.4}", self.perplexity, error * self.perplexity),
            None => format!("{:.4}", self.perplexity),
        }
    }

    pub fn nll(&self) -> String {
        match self.standard_error {
            Some(error) => format!("{:.6} ± {error:.6} nats per token", self.mean_nll),
            None => format!("{:.6} nats per token", self.mean_nll),
        }
    }
}

impl From<Perplexity> for Measured {
    fn from(found: Perplexity) -> Self {
        Self {
            perplexity: found.perplexity,
            mean_nll: found.mean_nll,
            standard_error: found.standard_error,
        }
    }
}

impl From<&PositionPerplexity> for Measured {
    fn from(found: &PositionPerplexity) -> Self {
        Self {
            perplexity: found.perplexity,
            mean_nll: found.mean_nll,
            standard_error: found.standard_error,
        }
    }
}
