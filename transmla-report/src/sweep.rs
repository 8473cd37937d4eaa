//! What the page and the picture of a sweep show.

use serde::{Deserialize, Serialize};

use crate::conversion::{Fact, Measured};
use crate::tasks::TaskFigures;

/// Several models of one original.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepReport {
    /// The original by its id or name.
    pub model: String,
    /// What perplexities were measured on.
    pub evaluation: String,
    /// The original.
    pub original: Measured,
    /// The models, by method.
    pub curves: Vec<SweepCurve>,
    /// What all have in common.
    pub facts: Vec<Fact>,
    /// Seconds from start to end.
    pub total_seconds: Option<f64>,
    /// The most memory in use, in bytes.
    pub peak_bytes: Option<u64>,
    /// What the recipes have in common, as `transmla.toml` has it.
    pub recipe: Option<String>,
    /// Program and version that made this.
    pub generator: String,
}

/// Models that differ in widths alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SweepCurve {
    /// The method and its steps.
    pub label: String,
    /// The models.
    pub points: Vec<SweepPoint>,
}

/// One model of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepPoint {
    /// Width of the rotary key.
    pub rope_dim: usize,
    /// Width of the latent.
    pub rank: usize,
    /// KV numbers per token and layer.
    pub cache: usize,
    /// Perplexity.
    pub perplexity: f64,
    /// Perplexity after RoPE decoupling (published method).
    pub partial_rope: Option<f64>,
    /// Frequency folding (published method).
    pub freqfold: Option<usize>,
    /// Accuracy on tasks, beside the original's.
    pub tasks: Vec<TaskFigures>,
}
