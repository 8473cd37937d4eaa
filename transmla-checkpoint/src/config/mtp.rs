//! Multi-token-prediction (MTP) layers.

use serde_json::Value;

use super::attention::AttentionConfig;
use super::family::Family;
use super::json::Keys;
use crate::error::CheckpointError;

/// Multi-token-prediction (MTP) layers: grouped attention in any case, carried over and never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtpConfig {
    /// Number of layers.
    pub layers: usize,
    /// Key heads of their attention.
    pub num_key_value_heads: usize,
    /// Width of their heads.
    pub head_dim: usize,
}

impl MtpConfig {
    /// Reads the MTP layers of a configuration; their attention stays grouped when the model's own is converted.
    pub(super) fn read(
        keys: &Keys<'_>,
        family: &Family,
        attention: &AttentionConfig,
    ) -> Result<Option<Self>, CheckpointError> {
        // 0 is how some configurations say that there are none.
        let none = keys.get("num_nextn_predict_layers").and_then(Value::as_u64) == Some(0);
        if family.mtp_prefix.is_none() || none {
            return Ok(None);
        }
        let Some(layers) = keys.optional_size("num_nextn_predict_layers")? else {
            return Ok(None);
        };
        let (num_key_value_heads, head_dim) = match attention {
            AttentionConfig::Grouped(grouped) => (grouped.num_key_value_heads, grouped.head_dim),
            AttentionConfig::Latent(latent) => (keys.size("mtp_num_key_value_heads")?, latent.v_head_dim),
        };
        Ok(Some(Self {
            layers,
            num_key_value_heads,
            head_dim,
        }))
    }
}
