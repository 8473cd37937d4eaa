//! Number formats of tensors in files, and how they are decoded.

use std::fmt;

use safetensors::Dtype;

use super::dtype::StorageDtype;
use crate::error::CheckpointError;
use crate::quantized::GgmlType;

/// The number format of a tensor in a file, which may be one that cannot be computed with.
///
/// Displayed as in the file's header: `BF16`, `F8_E4M3` in safetensors, `Q4_K` in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorDtype(Format);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Safetensors(Dtype),
    Ggml(GgmlType),
}

impl TensorDtype {
    /// The format as one of the three that weights are written in; `None` if it is another.
    pub fn storage(self) -> Option<StorageDtype> {
        match self.0 {
            Format::Safetensors(Dtype::F32) => Some(StorageDtype::F32),
            Format::Safetensors(Dtype::F16) => Some(StorageDtype::F16),
            Format::Safetensors(Dtype::BF16) => Some(StorageDtype::Bf16),
            Format::Safetensors(_) => None,
            Format::Ggml(format) => format.plain(),
        }
    }

    /// Whether the numbers are integers of few bits with scales.
    pub fn is_quantised(self) -> bool {
        self.storage().is_none()
    }

    /// How the numbers are decoded.
    ///
    /// # Errors
    /// Those of the tensor of this name cannot be.
    pub(super) fn numbers(self, name: &str) -> Result<Numbers, CheckpointError> {
        if let Format::Ggml(format) = self.0 {
            return Ok(Numbers::Blocks(format));
        }
        self.storage()
            .map(Numbers::Plain)
            .ok_or_else(|| CheckpointError::Dtype {
                name: name.to_owned(),
                found: self.to_string(),
                supported: "F32, F16, BF16 (take the model in one of these, or dequantise it first)",
            })
    }
}

impl From<Dtype> for TensorDtype {
    fn from(dtype: Dtype) -> Self {
        Self(Format::Safetensors(dtype))
    }
}

impl From<GgmlType> for TensorDtype {
    fn from(format: GgmlType) -> Self {
        Self(Format::Ggml(format))
    }
}

impl fmt::Display for TensorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Format::Safetensors(dtype) => write!(f, "{dtype:?}"),
            Format::Ggml(format) => format.fmt(f),
        }
    }
}

/// How stored bytes become numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// One by one.
    Plain(StorageDtype),
    /// Block by block.
    Blocks(GgmlType),
    /// `float8_e4m3fn`, which is nothing without its scales.
    EightBits,
}

impl Numbers {
    /// Numbers that are decoded together.
    pub fn block(self) -> usize {
        match self {
            Self::Plain(_) | Self::EightBits => 1,
            Self::Blocks(format) => format.block(),
        }
    }

    /// Bytes of these.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Plain(dtype) => dtype.bytes(),
            Self::Blocks(format) => format.block_bytes(),
            Self::EightBits => 1,
        }
    }

    /// Decodes whole blocks onto the end of `out`.
    pub fn decode_onto(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::Plain(dtype) => dtype.decode_onto(bytes, out),
            Self::Blocks(format) => format.decode_onto(bytes, out),
            Self::EightBits => out.extend(bytes.iter().map(|bits| float8(*bits))),
        }
    }
}

/// The number that 8 bits stand for: a sign, 4 bits of exponent, 3 of fraction, no infinity (`float8_e4m3fn`).
fn float8(bits: u8) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from((bits >> 3) & 15), f32::from(bits & 7));
    match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * fraction * 2f32.powi(-9),
        _ => sign * (8.0 + fraction) * 2f32.powi(exponent - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_those_of_torch() {
        // torch 2.13: torch.tensor([…], dtype=torch.uint8).view(torch.float8_e4m3fn).
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0xb9, -1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(float8(bits), value, "{bits:x}");
        }
        assert!(float8(0x7f).is_nan() && float8(0xff).is_nan());
        assert!(float8(0x80) == 0.0 && float8(0x80).is_sign_negative());
    }
}
