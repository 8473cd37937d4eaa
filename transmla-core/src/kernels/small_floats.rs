//! Floats of 8 and 16 bits by integer arithmetic that compilers make vectors of.

/// Largest number of the 8-bit format.
pub(super) const LARGEST_E4M3: f32 = 448.0;

/// Largest number of half precision.
const LARGEST_HALF: f32 = 65504.0;

/// The number of an OCP FP8 E4M3 code. Codes without a number (0x7f and 0xff) are never written here and give ±480.
#[inline(always)]
pub(super) fn from_e4m3(code: u8) -> f32 {
    let code = u32::from(code);
    let magnitude = code & 0x7f;
    // Exponents have a bias of 7 there and of 127 here. Numbers without a leading one are multiples of 2^-9.
    let normal = f32::from_bits((magnitude << 20) + (120 << 23));
    let number = if magnitude < 8 {
        magnitude as f32 * (1.0 / 512.0)
    } else {
        normal
    };
    f32::from_bits(number.to_bits() | (code & 0x80) << 24)
}

/// The nearest OCP FP8 E4M3 code, ties to even; numbers beyond the largest become it.
#[inline(always)]
pub(super) fn to_e4m3(number: f32) -> u8 {
    let sign = (number.to_bits() >> 24) as u8 & 0x80;
    let magnitude = number.abs().min(LARGEST_E4M3);
    let bits = magnitude.to_bits();
    let code = if magnitude < 1.0 / 64.0 {
        (magnitude * 512.0).round_ties_even() as u32
    } else {
        // Half a unit of the last kept bit, less where the kept part is even; a carry goes into the exponent, as it should.
        ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20) - (120 << 3)
    };
    sign | code as u8
}

/// The number of half-precision bits that are neither infinite nor NaN.
#[inline(always)]
pub(super) fn from_half(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let magnitude = bits & 0x7fff;
    let normal = f32::from_bits((magnitude << 13) + (112 << 23));
    let number = if magnitude < 0x400 {
        magnitude as f32 * (1.0 / 16_777_216.0)
    } else {
        normal
    };
    f32::from_bits(number.to_bits() | (bits & 0x8000) << 16)
}

/// The nearest number of half precision, as bits; numbers beyond the largest become it.
#[inline(always)]
pub(super) fn to_half(number: f32) -> u16 {
    half::f16::from_f32(number.clamp(-LARGEST_HALF, LARGEST_HALF)).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All 256 values by the definition of the format (OCP 8-bit Floating Point Specification, table 1), not by this code.
    #[test]
    fn every_code_of_e4m3_has_its_number() {
        for code in 0..=255u8 {
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
            let magnitude = match exponent {
                0 => mantissa / 8.0 * 2f64.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
            };
            let expected = if code < 128 { magnitude } else { -magnitude };
            if code & 0x7f == 0x7f {
                continue;
            }
            assert_eq!(f64::from(from_e4m3(code)), expected, "{code:#x}");
            assert_eq!(to_e4m3(expected as f32), code, "{expected}");
        }
        assert_eq!(
            [from_e4m3(0x7e), from_e4m3(0x38), from_e4m3(0x01)],
            [448.0, 1.0, 0.001953125]
        );
        assert_eq!([to_e4m3(1e9), to_e4m3(-449.0), to_e4m3(463.9)], [0x7e, 0xfe, 0x7e]);
    }

    #[test]
    fn every_finite_half_has_its_number() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            if expected.is_finite() {
                assert_eq!(from_half(bits).to_bits(), expected.to_bits(), "{bits:#x}");
                assert_eq!(to_half(expected), bits);
            }
        }
        assert_eq!([from_half(to_half(1e9)), from_half(to_half(-7e4))], [65504.0, -65504.0]);
    }

    proptest! {
        /// No code is nearer than the one chosen, and of two equally near ones it is the even one.
        #[test]
        fn the_nearest_code_is_chosen(number in -500f32..500.0, exponent in 0i32..20) {
            let number = number * 2f32.powi(-exponent);
            let found = to_e4m3(number);
            let distance = |code: u8| (f64::from(from_e4m3(code)) - f64::from(number)).abs();
            for code in (0..=255u8).filter(|code| code & 0x7f != 0x7f && (code & 0x80 == found & 0x80)) {
                prop_assert!(distance(found) < distance(code) || (distance(found) == distance(code) && (found == code || found & 1 == 0)));
            }
        }
    }
}
