//! Attention scores as tensors: scale, soft-cap and mask.

use burn::tensor::{Bool, Device, Tensor};
use transmla_checkpoint::config::AttentionParameters;

/// Scores with scale, soft-cap and mask, from plain products `[batch, H, new, tokens]`, the last query seeing the last key.
pub(super) fn masked_scores(parameters: &AttentionParameters, products: Tensor<4>) -> Tensor<4> {
    let scores = capped_scores(parameters, products);
    let [batch, heads, new, tokens] = scores.dims();
    match attention_mask(parameters, new, tokens, &scores.device()) {
        None => scores,
        Some(mask) => scores.mask_fill(
            mask.unsqueeze::<4>().expand([batch, heads, new, tokens]),
            f32::NEG_INFINITY,
        ),
    }
}

/// Scores with scale and soft-cap, from plain products.
pub(super) fn capped_scores(parameters: &AttentionParameters, products: Tensor<4>) -> Tensor<4> {
    let scores = products.mul_scalar(parameters.scale);
    match parameters.softcap {
        None => scores,
        Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
    }
}

/// The mask of `new` queries, the last of `tokens` tokens: true where a query does not see a key, `[new, tokens]`; `None` if
/// every query sees every key.
pub fn attention_mask(
    parameters: &AttentionParameters,
    new: usize,
    tokens: usize,
    device: &Device,
) -> Option<Tensor<2, Bool>> {
    let past = tokens.saturating_sub(new);
    let future = (new > 1).then(|| Tensor::<2, Bool>::tril_mask([new, tokens], past as i64, device));
    // Query i is token past + i and sees keys from past + i + 1 - window on.
    let window = parameters.window.filter(|window| *window < tokens);
    let long_ago = window
        .map(|window| Tensor::<2, Bool>::tril_mask([new, tokens], past as i64 - window as i64, device).bool_not());
    match (future, long_ago) {
        (Some(future), Some(long_ago)) => Some(future.bool_or(long_ago)),
        (one, other) => one.or(other),
    }
}
