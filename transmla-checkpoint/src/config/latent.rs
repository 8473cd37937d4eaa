//! Shapes of multi-head latent attention.

use super::family::{Family, QueryKeyNorm};
use super::json::Keys;
use crate::error::CheckpointError;

/// Shapes of multi-head latent attention, with the key names of DeepSeek's config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentConfig {
    /// Rank of the query projection, or nothing for a full one.
    pub q_lora_rank: Option<usize>,
    /// Groups of heads that have a latent and a rotary key each (`latent_groups`, grouped latent attention); 1 is MLA.
    pub latent_groups: usize,
    /// Whether a group's latent is its heads' value and their key without position, as it is (`tied_latent`, grouped tied
    /// attention): there is no `kv_b_proj`, and these three have one width.
    pub tied: bool,
    /// Width r of the latent that keys and values of a group are made from.
    pub kv_lora_rank: usize,
    /// Width of a head's query and key part without position.
    pub qk_nope_head_dim: usize,
    /// Width d_r of the key with position that the heads of a group share.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Epsilon of the RMSNorms on the latents; `None` if the model has no such norms.
    pub latent_norm_eps: Option<f64>,
    /// Whether some attention projections may have biases (the checkpoint says which).
    pub biases: bool,
    /// Scales of each token's key norm that are cached (`key_norm_heads`), if the norm is kept: one for each key head, or one for all.
    pub key_norm_heads: Option<usize>,
    /// Width of the keys that share a scale (`key_norm_width`), where they are not those of one head.
    pub key_norm_width: Option<usize>,
}

/// Epsilon of the latent norms in the stock DeepSeek-V3 classes, whatever `rms_norm_eps` says.
const STOCK_LATENT_EPS: f64 = 1e-6;

/// Rank of the queries that the stock class takes where config.json has no such key; null is none.
const STOCK_QUERY_RANK: usize = 1536;

impl LatentConfig {
    /// Of a stock DeepSeek-V3, or of a family's own class, which may have key heads that keep their norm.
    pub(super) fn read(
        keys: &Keys<'_>,
        family: Option<&Family>,
        heads: usize,
        rms_norm_eps: f64,
    ) -> Result<Self, CheckpointError> {
        let stock = family.is_none();
        let norms = stock || keys.flag("use_qkv_norm")?;
        let latent = Self {
            q_lora_rank: match stock && !keys.0.contains_key("q_lora_rank") {
                true => Some(STOCK_QUERY_RANK),
                false => keys.optional_size("q_lora_rank")?,
            },
            latent_groups: match family {
                Some(_) => keys.optional_size("latent_groups")?.unwrap_or(1),
                None => 1,
            },
            tied: family.is_some() && keys.flag("tied_latent")?,
            kv_lora_rank: keys.size("kv_lora_rank")?,
            qk_nope_head_dim: keys.size("qk_nope_head_dim")?,
            qk_rope_head_dim: keys.size("qk_rope_head_dim")?,
            v_head_dim: keys.size("v_head_dim")?,
            latent_norm_eps: norms.then_some(if stock { STOCK_LATENT_EPS } else { rms_norm_eps }),
            biases: keys.flag("attention_bias")?,
            key_norm_heads: match family {
                Some(_) => keys.optional_size("key_norm_heads")?,
                None => None,
            },
            key_norm_width: match family {
                Some(_) => keys.optional_size("key_norm_width")?,
                None => None,
            },
        };
        latent.check_groups(heads)?;
        latent.check_key_norm(family.map_or(QueryKeyNorm::Never, |family| family.qk_norm), heads)?;
        if !latent.qk_rope_head_dim.is_multiple_of(2) {
            return Err(CheckpointError::config("qk_rope_head_dim", "must be even"));
        }
        Ok(latent)
    }

    /// Whether groups of latents fit the heads and what else there is.
    fn check_groups(&self, heads: usize) -> Result<(), CheckpointError> {
        let wrong = |key, problem: &str| Err(CheckpointError::config(key, problem));
        if self.latent_groups == 0 || !heads.is_multiple_of(self.latent_groups) {
            return wrong("latent_groups", "must be a positive divisor of num_attention_heads");
        }
        if self.tied && [self.qk_nope_head_dim, self.v_head_dim] != [self.kv_lora_rank; 2] {
            return wrong(
                "tied_latent",
                "is for kv_lora_rank, qk_nope_head_dim and v_head_dim that are the same: a latent is its heads' key and value",
            );
        }
        if self.latent_groups > 1 || self.tied {
            if self.latent_norm_eps.is_some() {
                return wrong(
                    "use_qkv_norm",
                    "is for latents that all heads share, and neither for groups of heads nor tied ones",
                );
            }
            if self.key_norm_heads.is_some() {
                return wrong(
                    "key_norm_heads",
                    "is for latents that all heads share, and neither for groups of heads nor tied ones",
                );
            }
        }
        Ok(())
    }

    /// Whether kept scales of norms are those that a family has.
    fn check_key_norm(&self, norm: QueryKeyNorm, heads: usize) -> Result<(), CheckpointError> {
        let wrong = |key, problem: &str| Err(CheckpointError::config(key, problem));
        match (self.key_norm_heads, norm) {
            (None, _) => {}
            (Some(_), QueryKeyNorm::Never) => {
                return wrong("key_norm_heads", "is for families that normalise their keys");
            }
            (Some(found), _) if found == 0 || !heads.is_multiple_of(found) => {
                return wrong("key_norm_heads", "must be a positive divisor of num_attention_heads");
            }
            (Some(found), QueryKeyNorm::AllHeads) if found != 1 => {
                return wrong(
                    "key_norm_heads",
                    "must be 1 where the keys of all heads are normalised together",
                );
            }
            (Some(_), _) => {}
        }
        let together = self.key_norm_heads.is_some() && norm == QueryKeyNorm::AllHeads;
        match self.key_norm_width {
            None if together => wrong(
                "key_norm_width",
                "is required where the keys of all heads are normalised together",
            ),
            Some(_) if !together => wrong(
                "key_norm_width",
                "is for families that normalise the keys of all heads together, beside key_norm_heads",
            ),
            Some(width) if width == 0 || !width.is_multiple_of(self.qk_nope_head_dim) => {
                wrong("key_norm_width", "must be a positive multiple of qk_nope_head_dim")
            }
            _ => Ok(()),
        }
    }

    /// Numbers that the KV cache holds per token and layer for one group: latent, rotary key, and the scales of kept norms.
    pub fn group_numbers(&self) -> usize {
        self.kv_lora_rank + self.qk_rope_head_dim + self.key_norm_heads.unwrap_or(0)
    }

    /// The same for all groups.
    pub fn cache_numbers(&self) -> usize {
        self.latent_groups * self.group_numbers()
    }

    /// Rows of `kv_a_proj_with_mqa`: of each group its latent and its rotary key.
    pub fn down_rows(&self) -> usize {
        self.latent_groups * (self.kv_lora_rank + self.qk_rope_head_dim)
    }

    /// Whether it is more than MLA: no other engine's DeepSeek code has groups of latents, or tied ones.
    pub fn is_grouped(&self) -> bool {
        self.latent_groups > 1 || self.tied
    }

    /// Rows of the kept key projection that the scales of the keys' norm are made of; nothing where the norm is not kept.
    pub fn key_norm_rows(&self) -> Option<usize> {
        let width = self.key_norm_width.unwrap_or(self.qk_nope_head_dim);
        self.key_norm_heads.map(|scales| scales * width)
    }

    /// Width of a head's whole query: position-free and rotary part.
    pub fn query_width(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }
}
