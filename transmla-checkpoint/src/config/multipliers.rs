//! Factors of embeddings, scores, additions to the residual stream and logits, from config.json.

use super::family::{Family, Multipliers};
use super::form::Form;
use super::json::Keys;
use crate::error::CheckpointError;

/// Keys of [`Multipliers::Keys`] that a converted model keeps; the fourth, `attention_multiplier`, goes into its queries.
pub(super) const KEPT_MULTIPLIERS: [&str; 3] = ["embedding_multiplier", "residual_multiplier", "logits_scaling"];

/// The fourth key.
pub(super) const SCORE_MULTIPLIER: &str = "attention_multiplier";

/// What is multiplied by what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Factors {
    pub embeddings: f64,
    pub scores: f64,
    pub residual: f64,
    /// What logits are divided by.
    pub logits: f64,
}

impl Factors {
    pub fn read(
        keys: &Keys<'_>,
        family: &Family,
        hidden_size: usize,
        query_width: usize,
        form: Form,
    ) -> Result<Self, CheckpointError> {
        let by_width = Self {
            embeddings: 1.0,
            scores: (query_width as f64).powf(-0.5),
            residual: 1.0,
            logits: 1.0,
        };
        // The class has 1 for each.
        let factor = |key: &str| Ok::<f64, CheckpointError>(keys.number(key)?.unwrap_or(1.0));
        Ok(match family.multipliers {
            Multipliers::Width => by_width,
            Multipliers::Roots => {
                let scalar = keys.number("query_pre_attn_scalar")?;
                let scalar = scalar.unwrap_or(family.defaults.query_pre_attn_scalar);
                Self {
                    embeddings: (hidden_size as f64).sqrt(),
                    scores: scalar.powf(-0.5),
                    ..by_width
                }
            }
            Multipliers::Keys => {
                let [embeddings, residual, logits] = KEPT_MULTIPLIERS.map(factor);
                Self {
                    embeddings: embeddings?,
                    scores: match form {
                        Form::Grouped => factor(SCORE_MULTIPLIER)?,
                        _ => by_width.scores,
                    },
                    residual: residual?,
                    logits: logits?,
                }
            }
        })
    }
}
