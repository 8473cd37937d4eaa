//! Blocks of 256 integers that are read and not written: `block_q2_K`, `block_q3_K`, `block_q5_K`, `block_iq4_xs`.

use super::bits::read_half;
use super::legacy::LEVELS;
use super::q4_k::unpacked;

pub(super) const Q2_K_BYTES: usize = 16 + 64 + 2 + 2;
pub(super) const Q3_K_BYTES: usize = 32 + 64 + 12 + 2;
pub(super) const Q5_K_BYTES: usize = 2 + 2 + 12 + 32 + 128;
pub(super) const IQ4_XS_BYTES: usize = 2 + 2 + 4 + 128;

/// Two bits of one of 256 integers: each 32 bytes hold four runs of 32.
fn two_bits(bytes: &[u8], index: usize) -> u8 {
    (bytes[index / 128 * 32 + index % 32] >> (index / 32 % 4 * 2)) & 3
}

/// Sixteen scales and minima of 4 bits each, 256 integers of 2 bits, a scale of each kind.
pub(super) fn decode_q2_k(bytes: &[u8], out: &mut Vec<f32>) {
    let (small, rest) = bytes.split_at(16);
    let (integers, both) = rest.split_at(64);
    let (scale, minimum) = (read_half(both), read_half(&both[2..]));
    out.extend((0..256).map(|index| {
        let pair = small[index / 16];
        let (scale, minimum) = (scale * f32::from(pair & 15), minimum * f32::from(pair >> 4));
        scale * f32::from(two_bits(integers, index)) - minimum
    }));
}

/// The third bits of 256 integers, their other two, sixteen scales of 6 bits, and a scale of these.
pub(super) fn decode_q3_k(bytes: &[u8], out: &mut Vec<f32>) {
    let (third, rest) = bytes.split_at(32);
    let (integers, rest) = rest.split_at(64);
    let (small, all) = rest.split_at(12);
    let all = read_half(all);
    let of_group = |group: usize| {
        let low = (small[group % 8] >> (group / 8 * 4)) & 15;
        let high = (small[8 + group % 4] >> (group / 4 * 2)) & 3;
        all * (f32::from(low | (high << 4)) - 32.0)
    };
    out.extend((0..256).map(|index| {
        let missing = ((third[index % 32] >> (index / 32)) & 1) ^ 1;
        of_group(index / 16) * (f32::from(two_bits(integers, index)) - f32::from(missing << 2))
    }));
}

/// As `block_q4_K`, with the fifth bits in front of the other four.
pub(super) fn decode_q5_k(bytes: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (read_half(bytes), read_half(&bytes[2..]));
    let (small, rest) = bytes[4..].split_at(12);
    let (fifth, integers) = rest.split_at(32);
    out.extend((0..256).map(|index| {
        let (group, column) = (index / 32, index % 32);
        let low = (integers[group / 2 * 32 + column] >> (group % 2 * 4)) & 15;
        let high = (fifth[column] >> group) & 1;
        let (s, m) = unpacked(small, group);
        scale * f32::from(s) * f32::from(low | (high << 4)) - minimum * f32::from(m)
    }));
}

/// A scale, eight scales of 6 bits for 32 integers each, 256 integers of 4 bits.
pub(super) fn decode_iq4_xs(bytes: &[u8], out: &mut Vec<f32>) {
    let all = read_half(bytes);
    let high = u16::from_le_bytes([bytes[2], bytes[3]]);
    let (low, integers) = bytes[4..].split_at(4);
    out.extend((0..256).map(|index| {
        let group = index / 32;
        let low = (low[group / 2] >> (group % 2 * 4)) & 15;
        let upper = ((high >> (2 * group)) & 3) as u8;
        let scale = all * (f32::from(low | (upper << 4)) - 32.0);
        let byte = integers[group * 16 + index % 16];
        scale * f32::from(LEVELS[usize::from((byte >> (index % 32 / 16 * 4)) & 15)])
    }));
}
