//! `block_q6_K`: low four bits of 256 integers, their high two bits, 16 scales of 16 integers each, and a scale of these.

use half::f16;

use super::bits::{farthest, inverse, read_half};

pub(super) const BYTES: usize = 128 + 64 + 16 + 2;

/// Numbers with a scale of their own.
const GROUP: usize = 16;

/// Scales that are tried for a group: as if its largest number became `-(32 + step / 10)`.
const STEPS: std::ops::RangeInclusive<i8> = -9..=9;

/// Encodes 256 numbers.
pub(super) fn encode(values: &[f32], out: &mut Vec<u8>) {
    let scales: Vec<f32> = values.chunks_exact(GROUP).map(best_scale).collect();
    let stored = f16::from_f32(farthest(&scales) / -128.0);
    let all = stored.to_f32();
    let of_all = inverse(all);
    let scales: Vec<i8> = scales.iter().map(|scale| (scale * of_all).round() as i8).collect();
    let integer = |index: usize| {
        let scale = inverse(all * f32::from(scales[index / GROUP]));
        ((values[index] * scale).round().clamp(-32.0, 31.0) as i32 + 32) as u8
    };
    let (mut low, mut high) = ([0u8; 128], [0u8; 64]);
    for index in 0..256 {
        let (place, q) = (Place::of(index), integer(index));
        low[place.low] |= (q & 15) << place.low_shift;
        high[place.high] |= (q >> 4) << place.high_shift;
    }
    out.extend_from_slice(&low);
    out.extend_from_slice(&high);
    out.extend(scales.iter().map(|scale| scale.cast_unsigned()));
    out.extend_from_slice(&stored.to_le_bytes());
}

/// Decodes a block.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = bytes.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, all) = rest.split_at(16);
    let all = read_half(all);
    out.extend((0..256).map(|index| {
        let place = Place::of(index);
        let (low, high) = (low[place.low] >> place.low_shift, high[place.high] >> place.high_shift);
        let q = (low & 15) | ((high & 3) << 4);
        let scale = all * f32::from(scales[index / GROUP].cast_signed());
        scale * (f32::from(q) - 32.0)
    }));
}

/// Where the bits of an integer are.
struct Place {
    low: usize,
    low_shift: usize,
    high: usize,
    high_shift: usize,
}

impl Place {
    /// Each half of a block has four quarters of 32 integers: of one byte the low four bits are of the first or second
    /// quarter, the high ones of the third or fourth; a byte of high bits has one integer of each quarter.
    fn of(index: usize) -> Self {
        let (half, quarter, within) = (index / 128, index % 128 / 32, index % 32);
        Self {
            low: 64 * half + 32 * (quarter % 2) + within,
            low_shift: 4 * (quarter / 2),
            high: 32 * half + within,
            high_shift: 2 * quarter,
        }
    }
}

/// The scale of a group that leaves the least squared error, where large numbers count more (by their squares).
fn best_scale(values: &[f32]) -> f32 {
    let largest = farthest(values);
    if largest == 0.0 {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    for step in STEPS {
        let inverse = -(32.0 + 0.1 * f32::from(step)) / largest;
        let (mut product, mut power) = (0.0, 0.0);
        for x in values {
            let q = (x * inverse).round().clamp(-32.0, 31.0);
            product += x * x * x * q;
            power += x * x * q * q;
        }
        // For fixed integers the best scale is product / power, and it takes away product^2 / power of the error.
        if power > 0.0 && product * product / power > best.0 {
            best = (product * product / power, product / power);
        }
    }
    best.1
}
