//! `block_q4_K`: a scale of scales, a scale of minima, eight scales and minima of 6 bits for 32 integers each, then 256 integers,
//! of two in a byte.

use half::f16;

use super::bits::{inverse, read_half};

pub(super) const BYTES: usize = 2 + 2 + 12 + 128;

/// Numbers with a scale and a minimum of their own.
const GROUP: usize = 32;

/// Largest integer of a number, and of a scale or minimum.
const LARGEST: f32 = 15.0;
const LARGEST_SCALE: f32 = 63.0;

/// Scales that are tried for a group: as if its range became `14 + step / 10` steps.
const STEPS: std::ops::RangeInclusive<u8> = 0..=20;

/// Encodes 256 numbers.
pub(super) fn encode(values: &[f32], out: &mut Vec<u8>) {
    let fits: Vec<Fit> = values.chunks_exact(GROUP).map(Fit::best).collect();
    let largest = |part: fn(&Fit) -> f32| fits.iter().map(part).fold(0.0, f32::max) / LARGEST_SCALE;
    let scale = f16::from_f32(largest(|fit| fit.scale));
    let minimum = f16::from_f32(largest(|fit| fit.minimum));
    let (of_scale, of_minimum) = (inverse(scale.to_f32()), inverse(minimum.to_f32()));
    let small = |x: f32| x.round().clamp(0.0, LARGEST_SCALE) as u8;
    let pairs: Vec<(u8, u8)> = fits
        .iter()
        .map(|fit| (small(fit.scale * of_scale), small(fit.minimum * of_minimum)))
        .collect();
    out.extend_from_slice(&scale.to_le_bytes());
    out.extend_from_slice(&minimum.to_le_bytes());
    out.extend_from_slice(&packed(&pairs));
    let integer = |index: usize| {
        let (s, m) = pairs[index / GROUP];
        let step = inverse(scale.to_f32() * f32::from(s));
        let above = values[index] + minimum.to_f32() * f32::from(m);
        (above * step).round().clamp(0.0, LARGEST) as u8
    };
    // A byte has an integer of each of two neighbouring groups.
    for first in (0..256).step_by(2 * GROUP) {
        out.extend((first..first + GROUP).map(|index| integer(index) | (integer(index + GROUP) << 4)));
    }
}

/// Decodes a block.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<f32>) {
    let (scale, minimum) = (read_half(bytes), read_half(&bytes[2..]));
    let (small, integers) = bytes[4..].split_at(12);
    out.extend((0..256).map(|index| {
        let group = index / GROUP;
        let byte = integers[group / 2 * GROUP + index % GROUP];
        let q = if group.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        let (s, m) = unpacked(small, group);
        scale * f32::from(s) * f32::from(q) - minimum * f32::from(m)
    }));
}

/// Eight pairs of 6 bits in 12 bytes: the first four scales, the first four minima, then four bits of the other pairs, whose
/// upper two bits are in the upper two of the first eight bytes.
fn packed(pairs: &[(u8, u8)]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (index, (scale, minimum)) in pairs.iter().enumerate() {
        if index < 4 {
            bytes[index] |= scale;
            bytes[index + 4] |= minimum;
        } else {
            bytes[index + 4] = (scale & 15) | ((minimum & 15) << 4);
            bytes[index - 4] |= (scale >> 4) << 6;
            bytes[index] |= (minimum >> 4) << 6;
        }
    }
    bytes
}

/// The scale and minimum of a group.
pub(super) fn unpacked(bytes: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => (
            (bytes[group + 4] & 15) | ((bytes[group - 4] >> 6) << 4),
            (bytes[group + 4] >> 4) | ((bytes[group] >> 6) << 4),
        ),
    }
}

/// Numbers as `scale * integer - minimum`; neither is negative.
#[derive(Debug, Clone, Copy)]
struct Fit {
    scale: f32,
    minimum: f32,
}

impl Fit {
    /// The one that leaves the least squared error, where large numbers count more.
    fn best(values: &[f32]) -> Self {
        let lowest = values.iter().fold(0.0, |most: f32, x| most.min(*x));
        let highest = values.iter().fold(f32::MIN, |most, x| most.max(*x));
        let range = highest - lowest;
        let mut best = Self {
            scale: range / LARGEST,
            minimum: -lowest,
        };
        if range <= 0.0 {
            best.scale = 0.0;
            return best;
        }
        let mean = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
        let weight = |x: f32| mean.sqrt() + x.abs();
        let error = |fit: &Self| -> f32 {
            let left = |x: &f32| fit.scale * fit.integer(*x) - fit.minimum - x;
            values.iter().map(|x| weight(*x) * left(x).powi(2)).sum()
        };
        let mut least = error(&best);
        for step in STEPS {
            let start = Self {
                scale: range / (LARGEST - 1.0 + 0.1 * f32::from(step)),
                minimum: -lowest,
            };
            let fit = start.fitted(values, &weight);
            let found = error(&fit);
            if found < least {
                (best, least) = (fit, found);
            }
        }
        best
    }

    fn integer(&self, value: f32) -> f32 {
        ((value + self.minimum) * inverse(self.scale))
            .round()
            .clamp(0.0, LARGEST)
    }

    /// Weighted least squares for the integers that this one gives.
    fn fitted(&self, values: &[f32], weight: &dyn Fn(f32) -> f32) -> Self {
        let mut sums = [0.0f32; 5];
        for x in values {
            let (w, q) = (weight(*x), self.integer(*x));
            let terms = [w, w * x, w * q, w * q * q, w * q * x];
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        let [all, value, integer, square, product] = sums;
        let determinant = all * square - integer * integer;
        if determinant <= 0.0 {
            return *self;
        }
        let offset = (square * value - integer * product) / determinant;
        let (scale, offset) = match offset > 0.0 {
            true => (product / square, 0.0),
            false => ((all * product - value * integer) / determinant, offset),
        };
        Self {
            scale: scale.max(0.0),
            minimum: -offset,
        }
    }
}
