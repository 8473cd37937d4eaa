//! From a share of the original KV cache to shapes.

use transmla_core::ModelConfig;

use crate::spec::error::ConvertError;
use crate::spec::hint::Hint;
use crate::spec::shapes::rope_widths;

/// The pair (`qk_mqa_dim`, `kv_lora_rank`) whose cache is `share` of the original's, rounded.
///
/// The rotary key gets the largest possible width up to half of the budget: losing position costs most models more than
/// losing rank does, and the published table agrees (448 + 128 is ahead of 512 + 64 in nearly every row).
///
/// # Errors
/// A share that is not in (0, 1], or that leaves no room for a rotary pair and a latent.
pub fn shapes_for_budget(source: &ModelConfig, share: f64) -> Result<(usize, usize), ConvertError> {
    let grouped = source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
        model_type: source.model_type.clone(),
    })?;
    let original = 2 * grouped.key_width();
    let numbers = if share > 0.0 && share <= 1.0 {
        (share * original as f64).round() as usize
    } else {
        0
    };
    let smallest = 3;
    if numbers < smallest {
        return Err(ConvertError::Option(Hint {
            field: "kv_budget",
            found: format!("{}%", share * 100.0),
            allowed: format!(
                "the original caches {original} numbers per token and layer, so {:.1}% to 100% is possible",
                100.0 * smallest as f64 / original as f64
            ),
            suggestion: "25%".into(),
        }));
    }
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
