//! Shapes of grouped-query attention.

use super::family::{BiasRule, Family};
use super::json::Keys;
use crate::error::CheckpointError;

/// Shapes of grouped-query attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupedConfig {
    /// Number of key/value heads G.
    pub num_key_value_heads: usize,
    /// Width d of one head.
    pub head_dim: usize,
    /// Whether q, k and v projections must have biases.
    pub qkv_bias: bool,
    /// Whether the output projection must have a bias.
    pub output_bias: bool,
}

impl GroupedConfig {
    /// Reads head counts, head width and biases.
    pub(super) fn read(
        keys: &Keys<'_>,
        family: &Family,
        num_attention_heads: usize,
        hidden_size: usize,
    ) -> Result<Self, CheckpointError> {
        // `null` is how older files say that there are as many as query heads.
        let assumed = match keys.is_null("num_key_value_heads") {
            true => None,
            false => family.defaults.num_key_value_heads,
        };
        let num_key_value_heads = match keys.optional_size("num_key_value_heads")? {
            Some(heads) => heads,
            None => assumed.unwrap_or(num_attention_heads),
        };
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(CheckpointError::config(
                "num_key_value_heads",
                match keys.get("num_key_value_heads") {
                    Some(_) => {
                        format!("{num_key_value_heads} does not divide num_attention_heads {num_attention_heads}")
                    }
                    None => format!(
                        "is absent, and the {num_key_value_heads} of the family's class in transformers does not divide \
                         num_attention_heads {num_attention_heads}; write the number of key heads into config.json"
                    ),
                },
            ));
        }
        let assumed = match keys.is_null("head_dim") {
            true => None,
            false => family.defaults.head_dim,
        };
        let head_dim = match keys.optional_size("head_dim")?.or(assumed) {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(CheckpointError::config(
                    "head_dim",
                    "is absent and num_attention_heads does not divide hidden_size",
                ));
            }
        };
        if !head_dim.is_multiple_of(2) {
            return Err(CheckpointError::config(
                "head_dim",
                format!("{head_dim} must be even for RoPE"),
            ));
        }
        let by_key = keys.flag("attention_bias")?;
        let (qkv_bias, output_bias) = match family.bias {
            BiasRule::Never => (false, false),
            BiasRule::AttentionBiasKey => (by_key, by_key),
            BiasRule::QueryKeyValue => (true, false),
            BiasRule::QkvBiasKey => (keys.flag_or("qkv_bias", true)?, false),
        };
        Ok(Self {
            num_key_value_heads,
            head_dim,
            qkv_bias,
            output_bias,
        })
    }

    /// Width K = G·d of all keys of a token.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}
