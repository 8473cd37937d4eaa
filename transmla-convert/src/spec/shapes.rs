//! The widths that a model's latent attention can have.

use transmla_core::{GroupedConfig, ModelConfig};
use transmla_rope::{FoldSpec, HeadShape};

use crate::spec::error::ConvertError;
use crate::spec::hint::Hint;
use crate::spec::options::FreqFold;
use crate::spec::recipe::Recipe;

/// Checks the width of the rotary key and the folding of frequencies; gives the foldings to choose from.
pub(crate) fn check_rope(
    source: &ModelConfig,
    grouped: &GroupedConfig,
    recipe: &Recipe,
    rope_dim: usize,
) -> Result<Vec<usize>, ConvertError> {
    let head_dim = grouped.head_dim;
    let widths: Vec<usize> = rope_widths(head_dim);
    if !widths.contains(&rope_dim) {
        let fitting = widths.iter().rev().find(|w| **w <= rope_dim).or(widths.first());
        return Err(ConvertError::Option(Hint {
            field: "qk_mqa_dim",
            found: rope_dim.to_string(),
            allowed: format!(
                "head_dim is {head_dim}, and an even divisor of it is needed, one of {}",
                list(&widths)
            ),
            suggestion: fitting.map_or_else(|| head_dim.to_string(), usize::to_string),
        }));
    }
    let collapse = head_dim / rope_dim;
    if let Some(found) = recipe.collapse.filter(|c| *c != collapse) {
        return Err(ConvertError::Option(Hint {
            field: "collapse",
            found: found.to_string(),
            allowed: format!("head_dim {head_dim} / qk_mqa_dim {rope_dim} = {collapse} frequencies fall on each slot"),
            suggestion: collapse.to_string(),
        }));
    }
    let shape = HeadShape {
        query_heads: source.num_attention_heads,
        key_heads: grouped.num_key_value_heads,
        head_dim,
    };
    let candidates = FoldSpec::candidates(shape, rope_dim).map_err(ConvertError::rope(0))?;
    match recipe.freqfold {
        FreqFold::Auto => Ok(candidates),
        FreqFold::Fixed(fold) => match FoldSpec::new(shape, rope_dim, fold) {
            Ok(_) => Ok(vec![fold]),
            Err(_) => Err(ConvertError::Option(Hint {
                field: "freqfold",
                found: fold.to_string(),
                allowed: format!(
                    "it must be a multiple of collapse {collapse} and divide the {} frequencies, for example {}",
                    head_dim / 2,
                    list(&candidates)
                ),
                suggestion: "auto".into(),
            })),
        },
    }
}

/// Checks the widths of the latents and the balance between keys and values, for a group of heads (or all of them) in a model of
/// `query_heads`.
pub(crate) fn check_ranks(
    source: &ModelConfig,
    grouped: &GroupedConfig,
    recipe: &Recipe,
    (rope_dim, rank): (usize, usize),
    query_heads: usize,
) -> Result<(), ConvertError> {
    // A layer without positions has all of its keys in the latent.
    let still = (0..source.num_hidden_layers).any(|layer| !source.rope.of(layer).has_positions());
    let largest = match still {
        true => 2 * grouped.key_width(),
        false => 2 * grouped.key_width() - rope_dim,
    };
    if !(1..=largest).contains(&rank) {
        // Half of the original cache is a mild start for most models.
        let whose = match query_heads == source.num_attention_heads {
            true => "",
            false => " of a group",
        };
        let half = grouped.key_width().saturating_sub(rope_dim);
        return Err(ConvertError::Option(Hint {
            field: "kv_lora_rank",
            found: rank.to_string(),
            allowed: match still {
                true => format!(
                    "keys and values{whose} have {largest} numbers per token, and layers without positions have all of them in the \
                     latent, so 1 to {largest} is possible"
                ),
                false => format!(
                    "keys and values{whose} have {} numbers per token and {} of them are the rotary key, so 1 to {largest} is possible",
                    2 * grouped.key_width(),
                    rope_dim
                ),
            },
            suggestion: if half == 0 { largest / 2 } else { half }.max(1).to_string(),
        }));
    }
    let queries = query_heads * grouped.head_dim;
    if let Some(rank) = recipe.q_lora_rank.filter(|rank| !(1..=queries).contains(rank)) {
        return Err(ConvertError::Option(Hint {
            field: "q_lora_rank",
            found: rank.to_string(),
            allowed: format!("queries have {queries} numbers per token, so 1 to {queries} is possible"),
            suggestion: (queries / 2).max(1).to_string(),
        }));
    }
    if !(recipe.balance_kv_ratio > 0.0 && recipe.balance_kv_ratio.is_finite()) {
        return Err(ConvertError::Option(Hint {
            field: "balance_kv_ratio",
            found: recipe.balance_kv_ratio.to_string(),
            allowed: "a positive number is needed".into(),
            suggestion: "1".into(),
        }));
    }
    Ok(())
}

/// The widths that a shared rotary key can have: even divisors of the head's width, ascending.
pub(crate) fn rope_widths(head_dim: usize) -> Vec<usize> {
    (1..=head_dim / 2)
        .map(|half| 2 * half)
        .filter(|width| head_dim.is_multiple_of(*width))
        .collect()
}

/// Numbers in a sentence.
pub(crate) fn list(values: &[usize]) -> String {
    let words: Vec<String> = values.iter().map(usize::to_string).collect();
    words.join(", ")
}
