//! The number formats that tensors of a GGUF file are read from.

use std::fmt;

use super::{legacy, q4_k, q5_0, q6_k, q8_0, super_blocks};
use crate::checkpoint::dtype::StorageDtype;

/// A number format of ggml (`ggml_type`) that is read; fewer are written ([`GgufDtype`](super::GgufDtype)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GgmlType(&'static Row);

/// What is known of a format.
#[derive(Debug, PartialEq)]
struct Row {
    number: u32,
    name: &'static str,
    /// Numbers of a block.
    block: usize,
    /// Bytes of a block.
    bytes: usize,
    decode: Decode,
}

#[derive(Debug, Clone, Copy)]
enum Decode {
    Plain(StorageDtype),
    Blocks(fn(&[u8], &mut Vec<f32>)),
}

impl Eq for Row {}

impl PartialEq for Decode {
    /// Rows differ by their number.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

const fn plain(number: u32, name: &'static str, dtype: StorageDtype, bytes: usize) -> Row {
    Row {
        number,
        name,
        block: 1,
        bytes,
        decode: Decode::Plain(dtype),
    }
}

const fn blocks(number: u32, name: &'static str, block: usize, bytes: usize, decode: fn(&[u8], &mut Vec<f32>)) -> Row {
    Row {
        number,
        name,
        block,
        bytes,
        decode: Decode::Blocks(decode),
    }
}

static TYPES: [Row; 15] = [
    plain(0, "F32", StorageDtype::F32, 4),
    plain(1, "F16", StorageDtype::F16, 2),
    plain(30, "BF16", StorageDtype::Bf16, 2),
    blocks(2, "Q4_0", 32, legacy::Q4_0_BYTES, legacy::decode_q4_0),
    blocks(3, "Q4_1", 32, legacy::Q4_1_BYTES, legacy::decode_q4_1),
    blocks(6, "Q5_0", 32, q5_0::BYTES, q5_0::decode),
    blocks(7, "Q5_1", 32, legacy::Q5_1_BYTES, legacy::decode_q5_1),
    blocks(8, "Q8_0", 32, q8_0::BYTES, q8_0::decode),
    blocks(10, "Q2_K", 256, super_blocks::Q2_K_BYTES, super_blocks::decode_q2_k),
    blocks(11, "Q3_K", 256, super_blocks::Q3_K_BYTES, super_blocks::decode_q3_k),
    blocks(12, "Q4_K", 256, q4_k::BYTES, q4_k::decode),
    blocks(13, "Q5_K", 256, super_blocks::Q5_K_BYTES, super_blocks::decode_q5_k),
    blocks(14, "Q6_K", 256, q6_k::BYTES, q6_k::decode),
    blocks(20, "IQ4_NL", 32, legacy::IQ4_NL_BYTES, legacy::decode_iq4_nl),
    blocks(
        23,
        "IQ4_XS",
        256,
        super_blocks::IQ4_XS_BYTES,
        super_blocks::decode_iq4_xs,
    ),
];

impl GgmlType {
    /// The formats that are read, for messages.
    pub(crate) const READ: &'static str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL, IQ4_XS";

    /// By its number in a file.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.number == number).map(Self)
    }

    /// Numbers of a block; rows of a tensor are whole blocks.
    pub(crate) fn block(self) -> usize {
        self.0.block
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        self.0.bytes
    }

    /// The format as one of the three whose numbers stand one by one.
    pub(crate) fn plain(self) -> Option<StorageDtype> {
        match self.0.decode {
            Decode::Plain(dtype) => Some(dtype),
            Decode::Blocks(_) => None,
        }
    }

    /// Decodes whole blocks onto the end of `out`; bytes that make no whole block are left alone.
    pub(crate) fn decode_onto(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self.0.decode {
            Decode::Plain(dtype) => dtype.decode_onto(bytes, out),
            Decode::Blocks(decode) => bytes.chunks_exact(self.0.bytes).for_each(|block| decode(block, out)),
        }
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Bytes that `xtask/src/interop/gguf_blocks.py` drew, and the numbers that gguf-py 0.19 reads from them.
    #[derive(Deserialize)]
    struct Recorded {
        dtype: String,
        bytes: Vec<u8>,
        /// Bits of `f32`.
        values: Vec<u32>,
    }

    #[test]
    fn numbers_are_those_of_gguf_py_to_the_bit() {
        let recorded: Vec<Recorded> = serde_json::from_str(include_str!("read.json")).unwrap();
        for row in &TYPES {
            let block = recorded.iter().find(|block| block.dtype == row.name).unwrap();
            let mut values = Vec::new();
            let dtype = GgmlType::of_number(row.number).unwrap();
            assert_eq!(
                block.bytes.len() / dtype.block_bytes() * dtype.block(),
                block.values.len()
            );
            dtype.decode_onto(&block.bytes, &mut values);
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, block.values, "{dtype}");
        }
        assert_eq!(recorded.len(), TYPES.len());
    }
}
