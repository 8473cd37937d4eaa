//! Blocks of 32 integers that are read and not written: `block_q4_0`, `block_q4_1`, `block_q5_1`, `block_iq4_nl`.

use super::bits::read_half;

pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(super) const Q5_1_BYTES: usize = 2 + 2 + 4 + 16;
pub(super) const IQ4_NL_BYTES: usize = 2 + 16;

/// What the 4 bits of `IQ4_NL` and `IQ4_XS` stand for (ggml's `kvalues_iq4nl`).
pub(super) const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The 4 bits of one of 32 integers: the first sixteen are the low halves of the bytes, the others the high ones.
fn four_bits(bytes: &[u8], index: usize) -> u8 {
    (bytes[index % 16] >> (4 * (index / 16))) & 15
}

pub(super) fn decode_q4_0(bytes: &[u8], out: &mut Vec<f32>) {
    let scale = read_half(bytes);
    let integers = &bytes[2..];
    out.extend((0..32).map(|index| scale * (f32::from(four_bits(integers, index)) - 8.0)));
}

pub(super) fn decode_q4_1(bytes: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (read_half(bytes), read_half(&bytes[2..]));
    let integers = &bytes[4..];
    out.extend((0..32).map(|index| scale * f32::from(four_bits(integers, index)) + minimum));
}

pub(super) fn decode_q5_1(bytes: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (read_half(bytes), read_half(&bytes[2..]));
    let fifth = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let integers = &bytes[8..];
    out.extend((0..32).map(|index| {
        let high = (((fifth >> index) & 1) << 4) as u8;
        scale * f32::from(four_bits(integers, index) | high) + minimum
    }));
}

pub(super) fn decode_iq4_nl(bytes: &[u8], out: &mut Vec<f32>) {
    let scale = read_half(bytes);
    let integers = &bytes[2..];
    out.extend((0..32).map(|index| scale * f32::from(LEVELS[usize::from(four_bits(integers, index))])));
}
