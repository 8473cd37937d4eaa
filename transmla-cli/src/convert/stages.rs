//! What stages are called, and what they took.

use transmla_convert::{Recipe, Setup, Stage, TextPurpose};

use crate::table;

/// What a stage took.
#[derive(Debug, Clone)]
pub struct StageTime {
    /// Name in JSON.
    pub name: String,
    /// Name for people.
    pub label: String,
    /// Wall time.
    pub seconds: f64,
    /// The most memory in use up to the end of the stage.
    pub peak_bytes: Option<u64>,
}

/// A text that was read.
#[derive(Debug, Clone)]
pub struct ReadText {
    /// What for.
    pub purpose: TextPurpose,
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Where it is from, folders and all.
    pub origin: String,
}

impl ReadText {
    /// How much of what was read, as a file may say it; `unit` is what a sequence is called.
    pub fn describe(&self, unit: &str, setup: &Setup, recipe: &Recipe) -> String {
        let origin = setup.bare_origin(&self.origin, recipe);
        let sequences = table::plural(self.sequences, unit);
        format!("{sequences} of {} tokens of {origin}", self.tokens)
    }
}

/// A stage for people.
pub fn label(stage: Stage) -> String {
    match stage {
        Stage::WriteText => "Write calibration text".into(),
        Stage::EvaluateOriginal => "Evaluate the original".into(),
        Stage::Decouple => "Decouple RoPE".into(),
        Stage::TryFreqfold(fold) => format!("Try freqfold {fold}"),
        Stage::EvaluateDecoupled => "Evaluate partial RoPE".into(),
        Stage::Gradients => "Take gradients".into(),
        Stage::Compress => "Factorise and write".into(),
        Stage::EvaluateConverted => "Evaluate the MLA model".into(),
        Stage::Teach => "Keep the original's logits".into(),
        Stage::Heal => "Heal".into(),
        Stage::CheckHealed => "Check the healed model".into(),
        Stage::AskOriginal => "Ask the original".into(),
        Stage::AskConverted => "Ask the MLA model".into(),
        other => format!("{other:?}"),
    }
}

/// What the parts of a stage are that outlive a run.
pub fn part(stage: Stage) -> &'static str {
    match stage {
        Stage::Gradients => "gradient step",
        Stage::Decouple => "decoupled layer",
        _ => "part",
    }
}

/// A stage in JSON.
pub fn name(stage: Stage) -> String {
    match stage {
        Stage::WriteText => "write_text".into(),
        Stage::EvaluateOriginal => "evaluate_original".into(),
        Stage::Decouple => "decouple".into(),
        Stage::TryFreqfold(fold) => format!("try_freqfold_{fold}"),
        Stage::EvaluateDecoupled => "evaluate_partial_rope".into(),
        Stage::Gradients => "gradients".into(),
        Stage::Compress => "compress".into(),
        Stage::EvaluateConverted => "evaluate_mla".into(),
        Stage::Teach => "teach".into(),
        Stage::Heal => "heal".into(),
        Stage::CheckHealed => "check_healed".into(),
        Stage::AskOriginal => "ask_original".into(),
        Stage::AskConverted => "ask_mla".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
