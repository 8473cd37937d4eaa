//! `block_q5_0`: a scale, the fifth bits of 32 integers, then their other bits, of two in a byte.

use half::f16;

use super::bits::{farthest, inverse, read_half};

pub(super) const BYTES: usize = 2 + 4 + 16;

/// Encodes 32 numbers.
pub(super) fn encode(values: &[f32], out: &mut Vec<u8>) {
    // The number that is farthest from 0 becomes -16, which there is; 16 there is not.
    let scale = farthest(values) / -16.0;
    let inverse = inverse(scale);
    let integer = |x: f32| (x * inverse + 16.5).clamp(0.0, 31.0) as u8;
    let mut fifth = 0u32;
    let mut rest = [0u8; 16];
    for (index, value) in values.iter().enumerate() {
        let q = integer(*value);
        fifth |= u32::from(q >> 4) << index;
        rest[index % 16] |= (q & 15) << (4 * (index / 16));
    }
    out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
    out.extend_from_slice(&fifth.to_le_bytes());
    out.extend_from_slice(&rest);
}

/// Decodes a block.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<f32>) {
    let scale = read_half(bytes);
    let fifth = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    let integer = |index: usize| {
        let low = (bytes[6 + index % 16] >> (4 * (index / 16))) & 15;
        i32::from(low) | (((fifth >> index) & 1) << 4).cast_signed()
    };
    out.extend((0..32).map(|index| scale * (integer(index) - 16) as f32));
}
