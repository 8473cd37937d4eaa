//! Latents of groups of heads (GLA), and tied ones (GTA): what can have them, and the model that one group is.

use transmla_core::{AttentionConfig, GroupedConfig, ModelConfig};

use crate::spec::error::ConvertError;
use crate::spec::hint::Hint;
use crate::spec::options::MethodName;
use crate::spec::recipe::Recipe;
use crate::spec::shapes::{list, rope_widths};

/// How the key heads of a model share latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Groups with a latent each; 1 is MLA.
    pub count: usize,
    /// Whether latents are values and keys without position as they are.
    pub tied: bool,
}

impl Groups {
    /// What a recipe asks for: tied latents are one to a key head unless it says otherwise.
    ///
    /// # Errors
    /// [`ConvertError::Option`] if the key heads cannot be in so many groups, or the model or the rest of the recipe is not for groups.
    pub fn of(source: &ModelConfig, grouped: &GroupedConfig, recipe: &Recipe) -> Result<Self, ConvertError> {
        let heads = grouped.num_key_value_heads;
        let count = recipe.latent_groups.unwrap_or(if recipe.tied { heads } else { 1 });
        let groups = Self {
            count,
            tied: recipe.tied,
        };
        if count == 0 || !heads.is_multiple_of(count) {
            let divisors: Vec<usize> = (1..=heads).filter(|n| heads.is_multiple_of(*n)).collect();
            let nearest = divisors.iter().rev().find(|n| **n <= count).unwrap_or(&1);
            return refuse(
                "latent_groups",
                count.to_string(),
                format!(
                    "the {heads} key heads are to be in groups of one size, so {} is possible",
                    list(&divisors)
                ),
                nearest.to_string(),
            );
        }
        if !groups.is_mla() {
            groups.check(source, recipe)?;
        }
        Ok(groups)
    }

    /// Whether all heads share one latent through `kv_b_proj`.
    pub fn is_mla(self) -> bool {
        self.count == 1 && !self.tied
    }

    fn check(self, source: &ModelConfig, recipe: &Recipe) -> Result<(), ConvertError> {
        if recipe.method != MethodName::Coherent {
            return refuse(
                "method",
                recipe.method.to_string(),
                "the published method knows one latent for all heads; groups of heads (latent_groups) and tied latents are \
                 found by the coherent one alone"
                    .into(),
                MethodName::Coherent.to_string(),
            );
        }
        if source.family.qk_norm.is_there() {
            let (field, found, suggestion) = match self.tied {
                true => ("tied", "true".to_owned(), "false"),
                false => ("latent_groups", self.count.to_string(), "1"),
            };
            return refuse(
                field,
                found,
                "the model normalises its queries and keys, and their norms are kept for a latent of all heads alone"
                    .into(),
                suggestion.into(),
            );
        }
        if recipe.use_qkv_norm {
            return refuse(
                "use_qkv_norm",
                "true".into(),
                "latents of groups, and tied ones, have no norms".into(),
                "false".into(),
            );
        }
        Ok(())
    }

    /// The model that one group is: as many heads as a group has, all else the same.
    pub fn source(self, source: &ModelConfig) -> ModelConfig {
        let mut one = source.clone();
        if let AttentionConfig::Grouped(grouped) = &mut one.attention {
            grouped.num_key_value_heads /= self.count;
            one.num_attention_heads /= self.count;
        }
        one
    }

    /// Widths of the rotary key and of the latent where a recipe leaves them open and latents are tied: a latent is as wide as a head,
    /// the rotary key half as wide (Zadouri, Strauss and Dao, arXiv 2505.21487, section 3.3.1).
    pub fn tied_widths(self, grouped: &GroupedConfig, recipe: &Recipe) -> (Option<usize>, Option<usize>) {
        let (rope, rank) = (recipe.qk_mqa_dim, recipe.kv_lora_rank);
        if !self.tied {
            return (rope, rank);
        }
        let widths = rope_widths(grouped.head_dim);
        let half = widths.iter().rev().find(|width| 2 * **width <= grouped.head_dim);
        (
            rope.or(half.or(widths.first()).copied()),
            rank.or(Some(grouped.head_dim)),
        )
    }
}

/// The model that one group of heads of a recipe is; the model itself where all heads share a latent. Shapes for a share of a cache
/// ([`shapes_for_budget`](crate::shapes_for_budget)) are those of this model.
///
/// # Errors
/// [`ConvertError::AlreadyLatent`]; [`ConvertError::Option`] for groups that do not fit the model.
pub fn group_source(source: &ModelConfig, recipe: &Recipe) -> Result<ModelConfig, ConvertError> {
    let grouped = source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
        model_type: source.model_type.clone(),
    })?;
    Ok(Groups::of(source, grouped, recipe)?.source(source))
}

fn refuse<T>(field: &'static str, found: String, allowed: String, suggestion: String) -> Result<T, ConvertError> {
    Err(ConvertError::Option(Hint {
        field,
        found,
        allowed,
        suggestion,
    }))
}
