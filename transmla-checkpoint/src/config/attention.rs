//! Grouped-query or latent attention.

use super::grouped::GroupedConfig;
use super::latent::LatentConfig;

/// The kind of attention of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum AttentionConfig {
    /// Grouped-query attention; multi-head attention is `num_key_value_heads == num_attention_heads`.
    Grouped(GroupedConfig),
    /// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
    Latent(LatentConfig),
}

impl AttentionConfig {
    /// Numbers that the KV cache holds per token and layer.
    pub fn cache_numbers(&self) -> usize {
        match self {
            Self::Grouped(grouped) => 2 * grouped.key_width(),
            Self::Latent(latent) => latent.cache_numbers(),
        }
    }

    /// Of these, what each of some devices holds that share the heads (tensor parallel): its part of the key heads or of the groups
    /// of latents, at least one. More devices than there are of these hold copies.
    pub fn device_numbers(&self, devices: usize) -> usize {
        let (parts, each) = match self {
            Self::Grouped(grouped) => (grouped.num_key_value_heads, 2 * grouped.head_dim),
            Self::Latent(latent) => (latent.latent_groups, latent.group_numbers()),
        };
        parts.div_ceil(devices.max(1)) * each
    }
}
