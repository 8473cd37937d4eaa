//! Attention of a few new tokens to many cached ones that lie on an accelerator: picks the form.

use burn::tensor::{DType, Tensor};
use transmla_checkpoint::config::AttentionParameters;

use super::cached_values::CachedValues;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use super::cube::dispatch;
use super::plain_decode::scaled_decode;

/// Causal attention of the newest tokens of sequences of different lengths to a cache in any float format.
///
/// Where burn computes with CubeCL (features `cuda` and `wgpu`) it is one fused kernel that reads the cache once, where it lies
/// and in the format it has; elsewhere, where gradients are recorded, and for formats that the device does not know, it is
/// [`plain_decode`](super::plain_decode()) in `f32`, which says what both compute.
///
/// # Shapes
/// q `[batch, H, new, width]` in `f32`, keys `[batch, G, longest, width]` or, with scales, `[batch, 1, longest, width + scales]`, a length of at most `longest` for each sequence;
/// result `[batch, H, new, d_v]`. There may be more rows than the longest sequence has tokens. Rows behind a sequence's end must
/// be finite and count nothing.
///
/// # Panics
/// If the shapes do not fit each other.
///
/// # Source
/// Split among cubes by tokens as in Flash-Decoding (Dao, Haziza, Massa and Sizov, 2023), with the running softmax of Milakov and
/// Gimelshein, arXiv 1805.02867; keys that are values too are DeepSeek-V2's absorbed form, arXiv 2405.04434, section 2.1.
pub fn decode_tensors(
    q: Tensor<4>,
    keys: Tensor<4>,
    values: CachedValues,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> Tensor<4> {
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    if let Some(attended) = dispatch::decode(&q, &keys, &values, lengths, parameters) {
        return attended;
    }
    let longest = lengths.iter().copied().max().unwrap_or(0).min(keys.dims()[2]);
    let value_width = values.width();
    let keys = keys.narrow(2, 0, longest).cast(DType::F32);
    let width = q.dims()[3];
    let (values, scales) = match values {
        CachedValues::Apart(values) => (values.narrow(2, 0, longest).cast(DType::F32), None),
        CachedValues::InKeys(_) => (keys.clone().narrow(3, 0, value_width), None),
        CachedValues::InScaledKeys { scales, .. } => {
            let behind = keys.clone().narrow(3, width, scales);
            (keys.clone().narrow(3, 0, value_width), Some(behind))
        }
    };
    scaled_decode(q, keys.narrow(3, 0, width), values, scales, lengths, parameters)
}

/// Whether [`decode_tensors`] is a fused kernel for these.
pub fn decode_is_fused(
    q: &Tensor<4>,
    keys: &Tensor<4>,
    values: &CachedValues,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> bool {
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    let fused = dispatch::plan(q, keys, values, lengths, parameters).is_some();
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    let fused = {
        let _ = (q, keys, values, lengths, parameters);
        false
    };
    fused
}
