//! Number formats of stored weights.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::error::CheckpointError;

/// The number format that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageDtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    #[default]
    Bf16,
}

impl StorageDtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a safetensors header.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The name in `torch_dtype` of config.json.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The nearest number that the format has, infinite for what is too large.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// Decodes little-endian bytes, `bytes().len() == n * self.bytes()`, into `f32`.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        out.clear();
        self.decode_onto(bytes, out);
    }

    /// As [`Self::decode`], onto the end of what `out` has.
    pub fn decode_onto(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => out.extend(
                bytes
                    .chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            Self::F16 => out.extend(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())),
            Self::Bf16 => out.extend(
                bytes
                    .chunks_exact(2)
                    .map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            ),
        }
    }

    /// Encodes numbers as little-endian bytes, rounding to nearest even.
    ///
    /// # Errors
    /// [`CheckpointError::Overflow`] if a finite value becomes infinite (half precision ends at 65504),
    /// [`CheckpointError::NonFinite`] if a value is not finite to begin with.
    pub fn encode(self, name: &str, values: &[f32], out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(CheckpointError::NonFinite {
                name: name.to_owned(),
                index,
                value: values[index],
            });
        }
        out.clear();
        out.reserve(values.len() * self.bytes());
        match self {
            Self::F32 => values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
            Self::F16 => {
                let mut half = vec![f16::ZERO; values.len()];
                half.convert_from_f32_slice(values);
                if let Some(index) = half.iter().position(|v| !v.is_finite()) {
                    return Err(self.overflow(name, values[index]));
                }
                half.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
            }
            Self::Bf16 => {
                for &value in values {
                    let rounded = bf16::from_f32(value);
                    if !rounded.is_finite() {
                        return Err(self.overflow(name, value));
                    }
                    out.extend_from_slice(&rounded.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    fn overflow(self, name: &str, value: f32) -> CheckpointError {
        CheckpointError::Overflow {
            name: name.to_owned(),
            value,
            dtype: self.torch_name(),
        }
    }
}

impl FromStr for StorageDtype {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        match text {
            "fp32" | "float32" | "f32" => Ok(Self::F32),
            "fp16" | "float16" | "f16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err(CheckpointError::UnknownDtype { found: text.to_owned() }),
        }
    }
}

impl fmt::Display for StorageDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "fp32",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips_exactly_what_fits(bits in prop::collection::vec(any::<u16>(), 1..40)) {
            for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::Bf16] {
                let raw: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
                let raw = &raw[..raw.len() / dtype.bytes() * dtype.bytes()];
                let mut numbers = Vec::new();
                dtype.decode(raw, &mut numbers);
                if numbers.iter().all(|v| v.is_finite()) {
                    let mut back = Vec::new();
                    dtype.encode("t", &numbers, &mut back).unwrap();
                    prop_assert_eq!(&back[..], raw);
                }
            }
        }
    }

    #[test]
    fn overflow_and_nan_are_errors() {
        let mut out = Vec::new();
        let big = StorageDtype::F16.encode("w", &[1e6], &mut out).unwrap_err();
        assert!(matches!(big, CheckpointError::Overflow { .. }));
        let nan = StorageDtype::F32.encode("w", &[0.0, f32::NAN], &mut out).unwrap_err();
        assert!(matches!(nan, CheckpointError::NonFinite { index: 1, .. }));
    }
}
