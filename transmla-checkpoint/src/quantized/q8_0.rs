//! `block_q8_0`: a scale, then 32 integers.

use half::f16;

use super::bits::{farthest, inverse, read_half};

pub(super) const BYTES: usize = 2 + 32;

/// Encodes 32 numbers.
pub(super) fn encode(values: &[f32], out: &mut Vec<u8>) {
    let scale = farthest(values).abs() / 127.0;
    out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
    let inverse = inverse(scale);
    out.extend(values.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned()));
}

/// Decodes a block.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<f32>) {
    let scale = read_half(bytes);
    out.extend(bytes[2..BYTES].iter().map(|q| scale * f32::from(q.cast_signed())));
}
