//! Text by its options: what a conversion is calibrated on, and a healing trained on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The text that a conversion is calibrated on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CalibrationText {
    /// Datasets by name or path, with weights; absent for wikitext2, and beside it `self` where the original has a chat template
    /// and its weights fit into memory while it writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cal_dataset: Option<String>,
    /// Column that is the text, in calibration and evaluation files that have columns; absent for `text`, `sentence`,
    /// `content`, a chat, or the only column of strings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_column: Option<String>,
    /// Exact token ids, instead of a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cal_tokens: Option<PathBuf>,
    /// Number of samples; absent for 128 for each text, or all that `cal-tokens` has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cal_nsamples: Option<usize>,
    /// Tokens of a sample; absent for 256, or as many as `cal-tokens` has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cal_max_seqlen: Option<usize>,
    /// Share of the samples with random words in them; absent for a quarter with the coherent method and a dataset,
    /// otherwise none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cal_noise: Option<f64>,
    /// Samples that go through a layer together, as far as they have 4096 tokens or there is one.
    pub cal_batch_size: usize,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for CalibrationText {
    fn default() -> Self {
        Self {
            cal_dataset: None,
            text_column: None,
            cal_tokens: None,
            cal_nsamples: None,
            cal_max_seqlen: None,
            cal_noise: None,
            cal_batch_size: 8,
            seed: 42,
        }
    }
}
