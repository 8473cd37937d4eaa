//! Attention of a few new tokens to many cached ones from plain tensor operations.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use transmla_checkpoint::config::AttentionParameters;

use super::scores::capped_scores;

/// Causal attention of the newest tokens of sequences of different lengths: what fused decoding is tested against, and what
/// other devices do.
///
/// # Shapes
/// q `[batch, H, new, width]`, keys `[batch, G, longest, width]`, values `[batch, G, longest, d_v]`, a length for each
/// sequence; result `[batch, H, new, d_v]`. Rows behind a sequence's end must be finite and count nothing.
pub fn plain_decode(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> Tensor<4> {
    scaled_decode(q, keys, values, None, lengths, parameters)
}

/// The same where one key head's scores have scales, `[batch, 1, longest, S]`: one for each of S equal shares of the heads.
pub(super) fn scaled_decode(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    scales: Option<Tensor<4>>,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> Tensor<4> {
    let [batch, heads, new, width] = q.dims();
    let [_, groups, longest, value_width] = values.dims();
    let rows = heads / groups * new;
    // The heads that share keys become rows of one product: no key is repeated.
    let products = q.reshape([batch, groups, rows, width]).matmul(keys.swap_dims(2, 3));
    let products = match scales {
        None => products,
        Some(scales) => {
            let shares = scales.dims()[3];
            let scales = scales
                .swap_dims(1, 3)
                .swap_dims(2, 3)
                .expand([batch, shares, rows / shares, longest]);
            products * scales.reshape([batch, groups, rows, longest])
        }
    };
    let scores = capped_scores(parameters, products); // [batch, G, H / G · new, longest]
    let scores = match mask(lengths, new, longest, parameters.window, &scores.device()) {
        None => scores,
        Some(mask) => {
            let mask = mask.expand([batch, groups, heads / groups, new, longest]);
            scores.mask_fill(mask.reshape([batch, groups, rows, longest]), f32::NEG_INFINITY)
        }
    };
    softmax(scores, 3)
        .matmul(values)
        .reshape([batch, heads, new, value_width])
}

/// True where a query may not look, `[batch, 1, 1, new, longest]`; `None` if all may look everywhere.
fn mask(
    lengths: &[usize],
    new: usize,
    longest: usize,
    window: Option<usize>,
    device: &Device,
) -> Option<Tensor<5, Bool>> {
    if new == 1 && lengths.iter().all(|length| *length == longest) && window.is_none_or(|window| window >= longest) {
        return None;
    }
    let hidden = lengths.iter().flat_map(|length| {
        (0..new).flat_map(move |row| {
            let end = (length + row + 1).saturating_sub(new);
            let first = window.map_or(0, |window| end.saturating_sub(window));
            (0..longest).map(move |token| token < first || token >= end)
        })
    });
    let data = TensorData::new(hidden.collect::<Vec<bool>>(), [lengths.len(), 1, 1, new, longest]);
    Some(Tensor::from_data(data, device))
}
