//! What the page of one conversion shows.

use serde::{Deserialize, Serialize};

use crate::tasks::TaskFigures;

/// One conversion. What is not known stays empty, and its part of the page is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConversionReport {
    /// The original by its id or name.
    pub model: String,
    /// How the latent model was found, in a few words.
    pub method: String,
    /// What else identifies the result: shapes, number format, form.
    pub facts: Vec<Fact>,
    /// What perplexities were measured on.
    pub evaluation: Option<String>,
    /// The original.
    pub original: Measured,
    /// The result.
    pub converted: Measured,
    /// Perplexity after RoPE decoupling (published method).
    pub partial_rope: Option<f64>,
    /// Width of the latent.
    pub rank: usize,
    /// Figures of the layers, in their order.
    pub layers: Vec<LayerFigures>,
    /// What took time, in order.
    pub phases: Vec<Phase>,
    /// Seconds from start to end.
    pub total_seconds: Option<f64>,
    /// The most memory in use, in bytes.
    pub peak_bytes: Option<u64>,
    /// Texts of both models.
    pub samples: Vec<Sample>,
    /// Accuracy of both models on tasks.
    pub tasks: Vec<TaskFigures>,
    /// The recipe, as `transmla.toml` has it.
    pub recipe: Option<String>,
    /// Program and version that made this.
    pub generator: String,
}

/// A named figure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value, as it is to be read.
    pub value: String,
}

/// A model's cost and quality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// KV numbers per token and layer.
    pub cache: usize,
    /// Perplexity, if measured.
    pub perplexity: Option<f64>,
}

/// What is known of a layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerFigures {
    /// The layer.
    pub layer: usize,
    /// Share of the energy of keys and values that the latent keeps, 0 to 1.
    pub kept_energy: Option<f64>,
    /// Squared error of fitted keys relative to their power, for models that normalise theirs.
    pub key_error: Option<f64>,
    /// Squared error of the residual stream behind attention, relative to what the original's attention adds to it.
    pub output_error: Option<f64>,
    /// Energy of the latent's directions from most to least, all of them, in any unit.
    pub spectrum: Vec<f64>,
    /// How the rotary key is made up.
    pub rope: Option<RopeFigures>,
    /// Held-out error, as [`Self::output_error`], after so many steps of refinement.
    pub refinement: Vec<(usize, f64)>,
}

/// Which frequencies of the original's keys the slots of the rotary key serve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RopeFigures {
    /// Frequencies of the original's pairs, in radians per token.
    pub frequencies: Vec<f64>,
    /// Frequencies of the slots, in radians per token.
    pub slots: Vec<f64>,
    /// For each slot, the share of each frequency's key energy that it carries, 0 to 1.
    pub shares: Vec<Vec<f64>>,
}

/// A part of the work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name for people.
    pub name: String,
    /// Wall time.
    pub seconds: f64,
    /// The most memory in use up to its end, in bytes.
    pub peak_bytes: Option<u64>,
}

/// The same beginning, continued by both models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What both were given.
    pub prompt: String,
    /// What the original goes on with, if it was asked.
    pub original: Option<String>,
    /// What the result goes on with.
    pub converted: String,
}
