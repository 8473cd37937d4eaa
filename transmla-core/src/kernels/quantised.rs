//! Rows of a latent cache with few bits: codes of the latent, what is behind it in half precision, scales.
//!
//! A row is a run of bytes, so that decoding reads one stream: the latent's codes, the numbers behind the latent in half precision, the
//! token's scale. With 4 bits there is a share of that scale for each group of numbers, one byte, in front of it. Whoever reads rows gets
//! all their numbers as `f32`, the scales multiplied in.

use std::fmt;

use pulp::Arch;

use super::int4::{GROUP, GROUP_BYTES, INT4_SCALE, best_share, encode_int4, largest, read_int4};
use super::small_floats::{LARGEST_E4M3, from_e4m3, from_half, to_e4m3, to_half};

/// Bytes of a token's scale: the upper half of an `f32`, rounded up.
const SCALE: usize = 2;

/// Largest 8-bit code.
const LARGEST_INT8: f32 = 127.0;

/// How the numbers of a latent are kept with few bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// Integers of 8 bits.
    Int8,
    /// Floats of 8 bits: 4 of exponent, 3 of mantissa, no infinity (OCP FP8 E4M3).
    Fp8E4m3,
    /// Integers of 4 bits.
    Int4,
}

impl Quantisation {
    /// Every one, those with more precision first.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Fp8E4m3, Self::Int4];
}

impl fmt::Display for Quantisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Fp8E4m3 => "fp8-e4m3",
            Self::Int4 => "int4",
        })
    }
}

/// How a row of a latent cache is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantisedRow {
    quantisation: Quantisation,
    /// Numbers of the latent.
    latent: usize,
    /// Numbers behind it, which are kept in half precision: rotary keys, and scales of key heads.
    exact: usize,
}

impl QuantisedRow {
    /// A row of `latent` numbers with few bits and `exact` numbers in half precision.
    pub fn new(quantisation: Quantisation, latent: usize, exact: usize) -> Self {
        Self {
            quantisation,
            latent,
            exact,
        }
    }

    /// How the latent is kept.
    pub fn quantisation(&self) -> Quantisation {
        self.quantisation
    }

    /// Numbers of a row.
    pub fn numbers(&self) -> usize {
        self.latent + self.exact
    }

    /// Bytes of a row, scales included.
    pub fn bytes(&self) -> usize {
        self.code_bytes() + 2 * self.exact + self.shares() + SCALE
    }

    /// Groups that have a share of the token's scale.
    fn shares(&self) -> usize {
        match self.quantisation {
            Quantisation::Int8 | Quantisation::Fp8E4m3 => 0,
            Quantisation::Int4 => self.latent.div_ceil(GROUP),
        }
    }

    fn code_bytes(&self) -> usize {
        match self.quantisation {
            Quantisation::Int8 | Quantisation::Fp8E4m3 => self.latent,
            // Two codes to a byte, in each group.
            Quantisation::Int4 => self.latent / GROUP * GROUP_BYTES + (self.latent % GROUP).div_ceil(2),
        }
    }

    /// Appends rows to bytes. A row with a number that is not finite is read back as NaN.
    ///
    /// # Panics
    /// If there are not whole rows.
    pub fn encode(&self, rows: &[f32], bytes: &mut Vec<u8>) {
        assert!(rows.len().is_multiple_of(self.numbers()), "rows of another width");
        for row in rows.chunks_exact(self.numbers()) {
            let (latent, exact) = row.split_at(self.latent);
            let exact = exact.iter().flat_map(|number| to_half(*number).to_le_bytes());
            if row.iter().all(|number| number.is_finite()) {
                self.encode_row(latent, exact, bytes);
            } else {
                bytes.resize(bytes.len() + self.bytes() - SCALE, 0);
                bytes.extend(u16::MAX.to_le_bytes());
            }
        }
    }

    fn encode_row(&self, latent: &[f32], exact: impl Iterator<Item = u8>, bytes: &mut Vec<u8>) {
        let whole = largest(latent);
        let (bits, inverse) = scale(match self.quantisation {
            Quantisation::Int8 => whole / LARGEST_INT8,
            Quantisation::Fp8E4m3 => whole / LARGEST_E4M3,
            Quantisation::Int4 => whole * INT4_SCALE,
        });
        match self.quantisation {
            Quantisation::Int8 => {
                let code = |number: &f32| (number * inverse).round_ties_even() as i8 as u8;
                bytes.extend(latent.iter().map(code));
                bytes.extend(exact);
            }
            Quantisation::Fp8E4m3 => {
                bytes.extend(latent.iter().map(|number| to_e4m3(number * inverse)));
                bytes.extend(exact);
            }
            Quantisation::Int4 => {
                let shares: Vec<u8> = latent.chunks(GROUP).map(|group| best_share(group, inverse)).collect();
                for (group, share) in latent.chunks(GROUP).zip(&shares) {
                    encode_int4(group, *share, inverse, bytes);
                }
                bytes.extend(exact);
                bytes.extend(shares);
            }
        }
        bytes.extend(bits.to_le_bytes());
    }

    /// Reads whole rows of bytes as `f32`.
    ///
    /// # Panics
    /// If the bytes are not of as many rows as the numbers.
    pub fn decode(&self, bytes: &[u8], numbers: &mut [f32]) {
        assert_eq!(bytes.len() / self.bytes().max(1), numbers.len() / self.numbers().max(1));
        Arch::new().dispatch(
            #[inline(always)]
            || match self.quantisation {
                Quantisation::Int8 => self.decode_with(bytes, numbers, read_int8),
                Quantisation::Fp8E4m3 => self.decode_with(bytes, numbers, read_e4m3),
                Quantisation::Int4 => self.decode_with(bytes, numbers, read_int4),
            },
        );
    }

    /// The bytes of a run of whole rows among those of all; start and length are counts of numbers.
    pub(super) fn bytes_of_rows<'a>(&self, bytes: &'a [u8], start: usize, len: usize) -> &'a [u8] {
        debug_assert!(start.is_multiple_of(self.numbers()) && len.is_multiple_of(self.numbers()));
        let of = |numbers: usize| numbers / self.numbers() * self.bytes();
        &bytes[of(start)..][..of(len)]
    }

    /// `read` is given codes, the shares of their groups, the scale, and the room for the latent.
    #[inline(always)]
    fn decode_with(&self, bytes: &[u8], numbers: &mut [f32], read: impl Fn(&[u8], &[u8], f32, &mut [f32])) {
        let (code_bytes, shares) = (self.code_bytes(), self.shares());
        let rows = numbers.chunks_exact_mut(self.numbers());
        for (row, numbers) in bytes.chunks_exact(self.bytes()).zip(rows) {
            let (codes, rest) = row.split_at(code_bytes);
            let (exact, rest) = rest.split_at(2 * self.exact);
            let (shares, scale) = rest.split_at(shares);
            let (latent, exact_numbers) = numbers.split_at_mut(self.latent);
            read(
                codes,
                shares,
                from_scale(u16::from_le_bytes([scale[0], scale[1]])),
                latent,
            );
            for (number, half) in exact_numbers.iter_mut().zip(exact.chunks_exact(2)) {
                *number = from_half(u16::from_le_bytes([half[0], half[1]]));
            }
        }
    }
}

#[inline(always)]
fn read_int8(codes: &[u8], _: &[u8], scale: f32, numbers: &mut [f32]) {
    for (number, code) in numbers.iter_mut().zip(codes) {
        *number = f32::from(*code as i8) * scale;
    }
}

#[inline(always)]
fn read_e4m3(codes: &[u8], _: &[u8], scale: f32, numbers: &mut [f32]) {
    for (number, code) in numbers.iter_mut().zip(codes) {
        *number = from_e4m3(*code) * scale;
    }
}

/// The bits of a scale, rounded up so that nothing is beyond the last code, and one over it; zero for what is too small.
fn scale(exact: f32) -> (u16, f32) {
    let bits = ((exact.to_bits() + 0xffff) >> 16) as u16;
    match from_scale(bits) {
        scale if scale < f32::MIN_POSITIVE => (0, 0.0),
        scale => (bits, scale.recip()),
    }
}

#[inline(always)]
fn from_scale(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Largest error of a number, as shares of the largest number of its group, of the token, and of itself. With 4 bits, of the root of
    /// the mean square of a group's errors: one number's error may be larger where that makes others smaller.
    fn bounds(quantisation: Quantisation) -> [f32; 3] {
        match quantisation {
            // Half a step of 1/127, the scale up to 1/128 larger.
            Quantisation::Int8 => [0.5 / 127.0 * 1.01, 0.0, 1e-6],
            // Half a step of 1/8; the group's share of the scale is rounded up, and the scale leaves room for larger ranges.
            Quantisation::Int4 => [0.5 / 8.0 * 1.01, 0.5 / 8.0 / 255.0 * 1.38, 1e-6],
            // Three bits of mantissa, and multiples of 2^-9 below.
            Quantisation::Fp8E4m3 => [0.0, 0.5 / 512.0 / 448.0 * 1.01, 1.0 / 16.0],
        }
    }

    /// Squares of the errors of a group of a token with this scale, for a share of it.
    fn squares_with(group: &[f32], scale: f64, share: u8) -> f64 {
        let step = f64::from(share) * scale;
        let error = |number: &f32| {
            let code = (f64::from(*number) / step + 8.0).floor().clamp(0.0, 15.0);
            f64::from(*number) - (code - 7.5) * step
        };
        group.iter().map(|number| error(number).powi(2)).sum()
    }

    proptest! {
        /// Against every share that there is, and against the one whose last step ends at the largest number.
        #[test]
        fn scales_of_groups_are_chosen(latent in 2usize..100, rows in 20usize..40, seed in 0u64..1000) {
            let form = QuantisedRow::new(Quantisation::Int4, latent, 0);
            let mut state = seed;
            let mut random = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
            };
            let numbers: Vec<f32> = (0..rows * latent).map(|_| random() + random() + random()).collect();
            let (mut bytes, mut found) = (Vec::new(), vec![0.0; numbers.len()]);
            form.encode(&numbers, &mut bytes);
            form.decode(&bytes, &mut found);
            let (mut chosen, mut best, mut filled) = (0.0, 0.0, 0.0);
            let rows = numbers.chunks(latent).zip(found.chunks(latent));
            for ((row, found), bytes) in rows.zip(bytes.chunks(form.bytes())) {
                let scale = f64::from(from_scale(u16::from_le_bytes([bytes[form.bytes() - 2], bytes[form.bytes() - 1]])));
                for (group, found) in row.chunks(GROUP).zip(found.chunks(GROUP)) {
                    let errors = group.iter().zip(found).map(|(number, found)| f64::from(number - found).powi(2));
                    let all = (1..=255).map(|share| squares_with(group, scale, share));
                    let full = (f64::from(largest(group)) / 8.0 / scale).ceil() as u8;
                    let here: f64 = errors.sum();
                    chosen += here;
                    best += all.fold(f64::INFINITY, f64::min);
                    filled += squares_with(group, scale, full);
                    // The range of the largest number is among those tried, give or take the rounding of its share.
                    let tried = squares_with(group, scale, full).max(squares_with(group, scale, full + 1));
                    prop_assert!(here <= tried * 1.001 + 1e-9, "{} {}", here, tried);
                }
            }
            prop_assert!(best <= chosen * 1.001 && chosen < 0.95 * filled, "{} {} {}", best, chosen, filled);
            prop_assert!(latent < GROUP || chosen < 1.2 * best, "{} {}", best, chosen);
        }

        #[test]
        fn rows_come_back_within_their_steps(
            latent in 1usize..150, exact in 0usize..40, rows in 1usize..4, exponent in -20i32..20, seed in 0usize..1000,
        ) {
            for quantisation in Quantisation::ALL {
                let form = QuantisedRow::new(quantisation, latent, exact);
                let numbers: Vec<f32> = (0..rows * form.numbers())
                    .map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0) * 2f32.powi(exponent))
                    .collect();
                let mut bytes = Vec::new();
                form.encode(&numbers[..form.numbers()], &mut bytes);
                form.encode(&numbers[form.numbers()..], &mut bytes);
                prop_assert_eq!(bytes.len(), rows * form.bytes());
                let mut found = vec![f32::NAN; numbers.len()];
                form.decode(&bytes, &mut found);
                let [of_group, of_token, of_itself] = bounds(quantisation);
                let group = if quantisation == Quantisation::Int4 { GROUP } else { latent };
                for (row, found) in numbers.chunks(form.numbers()).zip(found.chunks(form.numbers())) {
                    let token = largest(&row[..latent]);
                    for (group, found) in row[..latent].chunks(group).zip(found[..latent].chunks(group)) {
                        if quantisation == Quantisation::Int4 {
                            let bound = f64::from(of_group * largest(group) + of_token * token);
                            let errors = group.iter().zip(found).map(|(number, found)| f64::from(number - found));
                            let squares: f64 = errors.map(|error| error.powi(2)).sum();
                            prop_assert!((squares / group.len() as f64).sqrt() <= bound, "{}: {}", squares, bound);
                            continue;
                        }
                        for (number, found) in group.iter().zip(found) {
                            let bound = of_group * largest(group) + of_token * token + of_itself * number.abs();
                            prop_assert!((number - found).abs() <= bound, "{} {}: {}", quantisation, number, found);
                        }
                    }
                    for (number, found) in row[latent..].iter().zip(&found[latent..]) {
                        let (number, found) = (number.clamp(-65504.0, 65504.0), *found);
                        prop_assert!((number - found).abs() <= number.abs() / 2048.0 + 3e-8);
                    }
                }
            }
        }
    }

    /// Zeros stay zeros; damage is not hidden by a format that cannot hold it.
    #[test]
    fn rows_without_numbers() {
        for quantisation in Quantisation::ALL {
            let form = QuantisedRow::new(quantisation, 40, 2);
            let mut numbers = vec![0.0f32; 3 * 42];
            numbers[42 + 41] = f32::NAN;
            numbers[84..124].fill(1e-42);
            let mut bytes = Vec::new();
            form.encode(&numbers, &mut bytes);
            let mut found = vec![1.0; numbers.len()];
            form.decode(&bytes, &mut found);
            assert!(found[..42].iter().all(|number| *number == 0.0), "{quantisation}");
            assert!(found[42..82].iter().all(|number| number.is_nan()), "{quantisation}");
            assert!(found[84..].iter().all(|number| number.abs() < 1e-36), "{quantisation}");
        }
    }

    /// Bytes of a token: the codes, two for each number behind the latent, two for each scale.
    #[test]
    fn bytes_are_counted_with_scales() {
        let bytes = |quantisation, latent| QuantisedRow::new(quantisation, latent, 64).bytes();
        assert_eq!(bytes(Quantisation::Int8, 512), 512 + 128 + 2);
        assert_eq!(bytes(Quantisation::Fp8E4m3, 512), 512 + 128 + 2);
        assert_eq!(bytes(Quantisation::Int4, 512), 256 + 128 + 32 + 2);
        assert_eq!(bytes(Quantisation::Int4, 64), 32 + 128 + 4 + 2);
        assert_eq!(bytes(Quantisation::Int4, GROUP + 3), 8 + 2 + 128 + 2 + 2);
    }
}
