//! A perplexity that was measured.

use serde::{Deserialize, Serialize};

/// A perplexity and its number of windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub perplexity: f64,
    pub mean_nll: f64,
    pub windows: usize,
}

impl Evaluated {
    /// The perplexity in a table.
    pub fn four_digits(self) -> String {
        let value = self.perplexity;
        let decimals = (3 - value.max(1.0).log10().floor() as i32).clamp(0, 3) as usize;
        format!("{value:.decimals$}")
    }
}
