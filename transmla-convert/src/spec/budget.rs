//! From a share of the original KV cache to shapes.

use transmla_core::ModelConfig;

use crate::spec::error::ConvertError;
use crate::spec::hint::Hint;
use crate::spec::options::Engine;
use crate::spec::shapes::rope_widths;

/// The pair (`qk_mqa_dim`, `kv_lora_rank`) whose cache is `share` of the original's, rounded, where a token has `beside` more numbers than
/// those: the scales of kept norms ([`KeyNorm::scales`](crate::KeyNorm::scales)), which are part of the share.
///
/// The rotary key gets the largest possible width up to half of the budget: losing position costs most models more than
/// losing rank does, and the published table agrees (448 + 128 is ahead of 512 + 64 in nearly every row).
///
/// # Errors
/// A share that is not in (0, 1], or that leaves no room for a rotary pair and a latent.
pub fn shapes_for_budget(source: &ModelConfig, share: f64, beside: usize) -> Result<(usize, usize), ConvertError> {
    let grouped = source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
        model_type: source.model_type.clone(),
    })?;
    let original = 2 * grouped.key_width();
    let numbers = if share > 0.0 && share <= 1.0 {
        (share * original as f64).round() as usize
    } else {
        0
    };
    let smallest = SMALLEST + beside;
    if numbers < smallest {
        return Err(ConvertError::Option(Hint {
            field: "kv_budget",
            found: format!("{}%", share * 100.0),
            allowed: format!(
                "the original caches {original} numbers per token and layer, so {:.1}% to 100% is possible",
                100.0 * smallest as f64 / original as f64
            ),
            suggestion: format!("{}%", 100.0 * possible_share(original, 0.25, beside)),
        }));
    }
    let numbers = numbers - beside;
    let widths = rope_widths(grouped.head_dim);
    let rope = widths
        .iter()
        .rev()
        .find(|w| **w * 2 <= numbers)
        .or(widths.first())
        .copied()
        .unwrap_or(2);
    Ok((rope, numbers - rope))
}

/// Fewest numbers of a cache: a rotary pair and a latent of one.
const SMALLEST: usize = 3;

/// This share of a cache of so many numbers, or the next larger quarter that can be had.
fn possible_share(original: usize, share: f64, beside: usize) -> f64 {
    let quarters = [0.25, 0.5, 0.75, 1.0].into_iter();
    let possible = |share: &f64| (share * original as f64).round() as usize >= SMALLEST + beside;
    quarters
        .filter(|quarter| *quarter >= share)
        .find(possible)
        .unwrap_or(1.0)
}

/// Share of the original's cache that is kept where nothing is said of widths.
const DEFAULT_SHARE: f64 = 0.5;

/// How far from that share the widths that an engine has most kernels for may be, to be taken instead.
const NEAR: f64 = 0.1;

/// The width of the rotary key as published, which is taken where a rank alone is given.
const PUBLISHED_ROPE: usize = 64;

/// The pair (`qk_mqa_dim`, `kv_lora_rank`) where one or both are left open.
///
/// With both open they keep half of the original's cache (more of the smallest, which cannot be halved). For an engine some
/// of whose kernels are made for one pair of widths it is that pair, if it is within a tenth of the original's cache of half;
/// for one that holds latents of certain widths alone, the one nearest to half, if there is any below the original's cache.
/// `beside` are more numbers of each token, as in [`shapes_for_budget`]. Beside a given rotary key the rank makes half of the cache; beside a given rank the rotary key is the published 64 or the
/// widest below that the heads allow.
///
/// # Errors
/// [`ConvertError::AlreadyLatent`]; an original with no cache to speak of. Widths that are given are not checked.
pub fn default_shapes(
    source: &ModelConfig,
    engine: Option<Engine>,
    (rope, rank): (Option<usize>, Option<usize>),
    beside: usize,
) -> Result<(usize, usize), ConvertError> {
    if let (Some(rope), Some(rank)) = (rope, rank) {
        return Ok((rope, rank));
    }
    let grouped = source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
        model_type: source.model_type.clone(),
    })?;
    let (original, head_dim) = (2 * grouped.key_width(), grouped.head_dim);
    let half = shapes_for_budget(source, possible_share(original, DEFAULT_SHARE, beside), beside)?;
    let widths = rope_widths(head_dim);
    let published = widths
        .iter()
        .copied()
        .rfind(|width| *width <= PUBLISHED_ROPE)
        .unwrap_or(half.0);
    Ok(match (rope, rank) {
        (Some(rope), Some(rank)) => (rope, rank),
        (Some(rope), None) => (rope, (half.0 + half.1).saturating_sub(rope).max(1)),
        (None, Some(rank)) => (published, rank),
        (None, None) => {
            let common = engine.and_then(Engine::common_shape).filter(|(rope, rank)| {
                let share = (rope + rank) as f64 / original as f64;
                widths.contains(rope) && (share - DEFAULT_SHARE).abs() <= NEAR
            });
            let held = engine.map_or(&[][..], Engine::cache_widths).iter().copied();
            let smaller = held.filter(|numbers| (published + 1..original).contains(numbers));
            let nearest = smaller.min_by_key(|numbers| numbers.abs_diff(half.0 + half.1));
            common
                .or(nearest.map(|numbers| (published, numbers - published)))
                .unwrap_or(half)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Key heads and their width.
    fn model(heads: usize, head_dim: usize) -> ModelConfig {
        let config = json!({
            "model_type": "llama", "hidden_size": 512, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4 * heads, "num_key_value_heads": heads, "head_dim": head_dim, "vocab_size": 50,
            "rope_theta": 1e4,
        });
        ModelConfig::from_json(config.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn half_of_the_cache_is_kept() {
        let shapes =
            |heads, head_dim, engine| default_shapes(&model(heads, head_dim), engine, (None, None), 0).unwrap();
        // SmolLM2-135M, Llama-3-8B, Qwen2.5-7B, Gemma 3 270M, Phi-2, stories260K.
        for (heads, head_dim, any, sglang, vllm) in [
            (3, 64, (64, 128), (64, 128), (64, 256)),
            (8, 128, (128, 896), (128, 896), (64, 512)),
            (4, 128, (128, 384), (64, 512), (64, 512)),
            (1, 256, (128, 128), (128, 128), (64, 256)),
            (32, 80, (80, 2480), (80, 2480), (40, 536)),
            (4, 8, (8, 24), (8, 24), (8, 24)),
        ] {
            assert_eq!(shapes(heads, head_dim, None), any);
            assert_eq!(any.0 + any.1, heads * head_dim);
            assert_eq!(shapes(heads, head_dim, Some(Engine::LlamaCpp)), any);
            assert_eq!(shapes(heads, head_dim, Some(Engine::Vllm)), vllm);
            assert_eq!(shapes(heads, head_dim, Some(Engine::Sglang)), sglang);
        }
    }

    #[test]
    fn scales_of_kept_norms_are_part_of_the_budget() {
        let (rope, rank) = shapes_for_budget(&model(4, 16), 0.5, 4).unwrap();
        assert_eq!(rope + rank + 4, 64);
        assert_eq!(
            default_shapes(&model(4, 16), None, (None, None), 4).unwrap(),
            (rope, rank)
        );
        assert_eq!(
            default_shapes(&model(4, 16), None, (Some(8), None), 4).unwrap(),
            (8, 52)
        );
        // Half of 4 numbers has no room for a scale beside the smallest cache.
        assert_eq!(default_shapes(&model(1, 2), None, (None, None), 1).unwrap(), (2, 1));
        assert!(shapes_for_budget(&model(1, 2), 0.75, 1).is_err());
    }

    /// One key head of 2 numbers.
    #[test]
    fn the_smallest_cache_has_shapes_too() {
        let smallest = model(1, 2);
        assert_eq!(default_shapes(&smallest, None, (None, None), 0).unwrap(), (2, 1));
        let error = shapes_for_budget(&smallest, 0.5, 0).unwrap_err().to_string();
        assert!(
            error.contains("75.0% to 100%") && error.ends_with("kv_budget = 75%"),
            "{error}"
        );
        assert_eq!(shapes_for_budget(&smallest, 0.75, 0).unwrap(), (2, 1));
        let error = shapes_for_budget(&model(8, 128), 1.01, 0).unwrap_err().to_string();
        assert!(
            error.contains("kv_budget = 101%") && error.ends_with("kv_budget = 25%"),
            "{error}"
        );
    }

    #[test]
    fn a_width_alone_gets_one_that_fits() {
        let shapes =
            |heads, head_dim, rope, rank| default_shapes(&model(heads, head_dim), None, (rope, rank), 0).unwrap();
        assert_eq!(shapes(3, 64, Some(32), None), (32, 160));
        assert_eq!(shapes(8, 128, None, Some(512)), (64, 512));
        assert_eq!(shapes(4, 8, None, Some(20)), (8, 20));
        assert_eq!(shapes(3, 80, None, Some(20)), (40, 20));
        assert_eq!(shapes(3, 64, Some(2), Some(7)), (2, 7));
        assert_eq!(shapes(4, 8, Some(64), None), (64, 1));
    }
}
