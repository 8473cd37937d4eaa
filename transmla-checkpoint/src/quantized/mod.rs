//! Number formats of tensors in GGUF files: plain ones, and blocks of integers with scales as ggml has them.
//!
//! Layouts are those of ggml's `ggml-common.h`; the integers of a block are chosen here.

mod bits;
mod ggml_type;
mod legacy;
mod q4_k;
mod q5_0;
mod q6_k;
mod q8_0;
mod super_blocks;

use std::fmt;

pub(crate) use self::ggml_type::GgmlType;
use crate::checkpoint::dtype::StorageDtype;
use crate::error::CheckpointError;

/// Largest number that blocks take: that of half precision, in which their scales are.
const LARGEST: f32 = 65504.0;

/// The number format of a tensor in a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufDtype {
    /// Numbers one by one.
    Plain(StorageDtype),
    /// 32 integers of 8 bits and a scale: 8.5 bits a number.
    Q8_0,
    /// 32 integers of 5 bits and a scale: 5.5 bits a number.
    Q5_0,
    /// 256 integers of 6 bits, 16 scales of 8 bits and a scale of these: 6.56 bits a number.
    Q6K,
    /// 256 integers of 4 bits, 8 scales and 8 minima of 6 bits, and a scale of each kind: 4.5 bits a number.
    Q4K,
}

impl From<StorageDtype> for GgufDtype {
    fn from(dtype: StorageDtype) -> Self {
        Self::Plain(dtype)
    }
}

impl GgufDtype {
    /// Numbers of a block; rows of a tensor are whole blocks.
    pub fn block(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Q8_0 | Self::Q5_0 => 32,
            Self::Q6K | Self::Q4K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Plain(dtype) => dtype.bytes(),
            Self::Q8_0 => q8_0::BYTES,
            Self::Q5_0 => q5_0::BYTES,
            Self::Q6K => q6_k::BYTES,
            Self::Q4K => q4_k::BYTES,
        }
    }

    /// Its number in a file (`ggml_type`).
    pub fn ggml_type(self) -> u32 {
        match self {
            Self::Plain(StorageDtype::F32) => 0,
            Self::Plain(StorageDtype::F16) => 1,
            Self::Plain(StorageDtype::Bf16) => 30,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q6K => 14,
        }
    }

    /// Encodes whole blocks of numbers.
    ///
    /// # Errors
    /// As for [`StorageDtype::encode`], and as for half precision where there are blocks, whose scales are in it; numbers that make no
    /// whole blocks.
    pub fn encode(self, name: &str, values: &[f32], out: &mut Vec<u8>) -> Result<(), CheckpointError> {
        if let Self::Plain(dtype) = self {
            return dtype.encode(name, values, out);
        }
        let refuse = |problem: String| CheckpointError::Write {
            name: name.to_owned(),
            problem,
        };
        if !values.len().is_multiple_of(self.block()) {
            return Err(refuse(format!(
                "{self} has blocks of {} numbers, and these are {}",
                self.block(),
                values.len()
            )));
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(CheckpointError::NonFinite {
                name: name.to_owned(),
                index,
                value: values[index],
            });
        }
        if let Some(value) = values.iter().find(|value| value.abs() > LARGEST) {
            return Err(CheckpointError::Overflow {
                name: name.to_owned(),
                value: *value,
                dtype: "float16",
            });
        }
        out.clear();
        out.reserve(values.len() / self.block() * self.block_bytes());
        let encode = match self {
            Self::Plain(_) => return Ok(()),
            Self::Q8_0 => q8_0::encode,
            Self::Q5_0 => q5_0::encode,
            Self::Q6K => q6_k::encode,
            Self::Q4K => q4_k::encode,
        };
        values.chunks_exact(self.block()).for_each(|block| encode(block, out));
        Ok(())
    }

    /// Decodes whole blocks onto the end of `out`; bytes that make no whole block are left alone.
    pub fn decode_onto(self, bytes: &[u8], out: &mut Vec<f32>) {
        let block = match self {
            Self::Plain(dtype) => return dtype.decode_onto(bytes, out),
            Self::Q8_0 => q8_0::decode,
            Self::Q5_0 => q5_0::decode,
            Self::Q6K => q6_k::decode,
            Self::Q4K => q4_k::decode,
        };
        bytes
            .chunks_exact(self.block_bytes())
            .for_each(|bytes| block(bytes, out));
    }
}

impl fmt::Display for GgufDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Q8_0 => f.write_str("q8_0"),
            Self::Q5_0 => f.write_str("q5_0"),
            Self::Q6K => f.write_str("q6_k"),
            Self::Q4K => f.write_str("q4_k"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// Blocks by gguf-py 0.19: what it makes of numbers, and what numbers it reads from bytes.
    #[derive(Deserialize)]
    struct Recorded {
        dtype: String,
        /// Absent where it cannot encode the format.
        encoded_from: Option<Vec<f32>>,
        bytes: Vec<u8>,
        values: Vec<f32>,
    }

    const ALL: [GgufDtype; 4] = [GgufDtype::Q8_0, GgufDtype::Q5_0, GgufDtype::Q6K, GgufDtype::Q4K];

    #[test]
    fn blocks_are_those_of_gguf_py() {
        let recorded: Vec<Recorded> = serde_json::from_str(include_str!("recorded.json")).unwrap();
        let mut seen = Vec::new();
        for block in recorded {
            let dtype = *ALL.iter().find(|dtype| dtype.to_string() == block.dtype).unwrap();
            let mut values = Vec::new();
            dtype.decode_onto(&block.bytes, &mut values);
            assert_eq!(values, block.values, "{dtype}");
            if let Some(original) = block.encoded_from {
                let mut bytes = Vec::new();
                dtype.encode("t", &original, &mut bytes).unwrap();
                assert_eq!(bytes, block.bytes, "{dtype}");
            }
            seen.push(dtype);
        }
        assert!(ALL.iter().all(|dtype| seen.contains(dtype)));
    }

    /// Numbers that are about normally distributed, from a seed.
    fn normal(seed: u64, count: usize, scale: f32) -> Vec<f32> {
        let mut state = seed;
        let mut uniform = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..count)
            .map(|_| scale * (0..12).map(|_| uniform()).sum::<f32>())
            .collect()
    }

    fn relative_error(dtype: GgufDtype, values: &[f32]) -> f64 {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        dtype.encode("t", values, &mut bytes).unwrap();
        assert_eq!(bytes.len(), values.len() / dtype.block() * dtype.block_bytes());
        dtype.decode_onto(&bytes, &mut back);
        let square = |x: f32| f64::from(x).powi(2);
        let error: f64 = values.iter().zip(&back).map(|(a, b)| square(a - b)).sum();
        let power: f64 = values.iter().map(|x| square(*x)).sum();
        (error / power.max(f64::MIN_POSITIVE)).sqrt()
    }

    proptest! {
        /// For normally distributed numbers: half of what a uniform division into so many levels leaves at most.
        #[test]
        fn numbers_come_back_as_near_as_their_bits_allow(seed in any::<u64>(), scale in 0.01f32..10.0) {
            let values = normal(seed, 4096, scale);
            for (dtype, most) in [
                (GgufDtype::Q8_0, 0.008), (GgufDtype::Q6K, 0.02), (GgufDtype::Q5_0, 0.06), (GgufDtype::Q4K, 0.085),
            ] {
                let error = relative_error(dtype, &values);
                prop_assert!(error < most, "{dtype}: {error}");
            }
        }

        /// Whatever the numbers, no error is larger than the largest of them.
        #[test]
        fn any_numbers_have_a_block(values in prop::collection::vec(-1e4f32..1e4, 256)) {
            for dtype in ALL {
                let (mut bytes, mut back) = (Vec::new(), Vec::new());
                dtype.encode("t", &values, &mut bytes).unwrap();
                dtype.decode_onto(&bytes, &mut back);
                let most = values.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                let apart = values.iter().zip(&back).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
                prop_assert!(apart <= 0.13 * most, "{dtype}: {apart} of {most}");
            }
        }
    }

    #[test]
    fn constant_and_empty_blocks() {
        for dtype in ALL {
            assert!(relative_error(dtype, &[0.0; 256]) == 0.0, "{dtype}");
            for value in [1.0f32, -0.37, 900.0] {
                assert!(relative_error(dtype, &[value; 256]) < 0.04, "{dtype}");
            }
            // A row of an identity.
            let mut one = [0.0; 256];
            one[77] = 1.0;
            assert!(
                relative_error(dtype, &one) < 1e-3,
                "{dtype}: {}",
                relative_error(dtype, &one)
            );
        }
    }

    #[test]
    fn what_has_no_blocks_is_refused() {
        let mut out = Vec::new();
        let mut refused =
            |dtype: GgufDtype, values: &[f32]| dtype.encode("t", values, &mut out).unwrap_err().to_string();
        for dtype in ALL {
            assert!(refused(dtype, &[1.0; 31]).contains("blocks"));
            let mut values = [1.0; 256];
            values[3] = f32::NAN;
            assert!(refused(dtype, &values).contains('t'));
            values[3] = 1e30;
            assert!(refused(dtype, &values).contains("float16"), "{dtype}");
        }
    }
}
