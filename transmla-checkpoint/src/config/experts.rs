//! A mixture of experts, as config.json has it.

use serde_json::{Map, Value, json};

use super::expert_rule::ExpertRule;
use super::family::{Family, FeedForward};
use super::json::Keys;
use crate::error::CheckpointError;

/// A mixture of experts: the best few by a softmax over all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpertConfig {
    /// How the family calls them.
    pub rule: ExpertRule,
    /// Number of experts.
    pub count: usize,
    /// Experts that a token goes through.
    pub per_token: usize,
    /// Width of an expert.
    pub width: usize,
    /// Whether the shares of the chosen are normalised to sum to 1.
    pub normalised: bool,
    /// Width of the one that every token goes through besides, if there is one.
    pub shared_width: Option<usize>,
    /// Layers that have one MLP in the place of experts, in order.
    pub dense_layers: Vec<usize>,
}

/// Far beyond any model, and a layer's tensors can still be listed.
const MOST_EXPERTS: usize = 1 << 12;

impl ExpertConfig {
    /// Reads the keys that the family's rule names; nothing if no layer has experts.
    pub(super) fn read(keys: &Keys<'_>, family: &Family, num_layers: usize) -> Result<Option<Self>, CheckpointError> {
        let FeedForward::Experts(rule) = family.feed_forward else {
            return Ok(None);
        };
        let defaults = &family.defaults;
        // transformers takes the first name for the second.
        let count = match keys.optional_size("num_experts")? {
            Some(count) => Some(count),
            None => keys.optional_size("num_local_experts")?,
        };
        let per_token = keys.optional_size("num_experts_per_tok")?;
        let dense_layers = match rule.by_keys {
            true => dense_layers(keys, num_layers)?,
            false => Vec::new(),
        };
        if dense_layers.len() == num_layers {
            return Ok(None);
        }
        let experts = Self {
            rule,
            count: count.unwrap_or(defaults.num_local_experts),
            per_token: per_token.unwrap_or(defaults.num_experts_per_tok),
            width: keys.size_of(
                if rule.by_keys {
                    "moe_intermediate_size"
                } else {
                    "intermediate_size"
                },
                defaults,
            )?,
            normalised: !rule.by_keys || keys.flag("norm_topk_prob")?,
            shared_width: match rule.shared {
                true => Some(keys.size_of("shared_expert_intermediate_size", defaults)?),
                false => None,
            },
            dense_layers,
        };
        if experts.count > MOST_EXPERTS {
            let problem = format!("{} is more than {MOST_EXPERTS}", experts.count);
            return Err(CheckpointError::config("num_local_experts", problem));
        }
        if experts.per_token > experts.count {
            let problem = format!("{} exceeds num_local_experts {}", experts.per_token, experts.count);
            return Err(CheckpointError::config("num_experts_per_tok", problem));
        }
        Ok(Some(experts))
    }

    /// Numbers of weights of the experts of one layer that a token does not meet, given the width of the residual stream.
    pub fn unmet(&self, hidden: usize) -> u64 {
        3 * (self.count - self.per_token) as u64 * hidden as u64 * self.width as u64
    }

    /// Numbers of weights of the experts of one layer but one, given the width of the residual stream: what need not be in memory
    /// while one of them is.
    pub fn all_but_one(&self, hidden: usize) -> u64 {
        3 * (self.count as u64).saturating_sub(1) * hidden as u64 * self.width as u64
    }

    /// Width of everything that is activated for a token of a layer with experts.
    pub fn active_width(&self) -> usize {
        self.per_token * self.width + self.shared_width.unwrap_or(0)
    }

    /// Writes every key that counts, none left to a default.
    pub(super) fn write(&self, out: &mut Map<String, Value>) {
        let mut set = |key: &str, value: Value| out.insert(key.to_owned(), value);
        set("num_local_experts", json!(self.count));
        set("num_experts_per_tok", json!(self.per_token));
        if self.rule.by_keys {
            set("moe_intermediate_size", json!(self.width));
            set("norm_topk_prob", json!(self.normalised));
            set("decoder_sparse_step", json!(1));
            set("mlp_only_layers", json!(self.dense_layers));
        }
        if let Some(width) = self.shared_width {
            set("shared_expert_intermediate_size", json!(width));
        }
    }
}

/// The layers without experts: those of `mlp_only_layers`, and all but every `decoder_sparse_step`-th.
fn dense_layers(keys: &Keys<'_>, num_layers: usize) -> Result<Vec<usize>, CheckpointError> {
    let step = keys.optional_size("decoder_sparse_step")?.unwrap_or(1);
    let wrong = || CheckpointError::config("mlp_only_layers", "is not a list of numbers of layers");
    let named: Vec<u64> = match keys.get("mlp_only_layers") {
        None => Vec::new(),
        Some(value) => {
            let list = value.as_array().ok_or_else(wrong)?;
            list.iter()
                .map(|entry| entry.as_u64().ok_or_else(wrong))
                .collect::<Result<_, _>>()?
        }
    };
    let dense = |layer: &usize| !(layer + 1).is_multiple_of(step) || named.contains(&(*layer as u64));
    Ok((0..num_layers).filter(dense).collect())
}
