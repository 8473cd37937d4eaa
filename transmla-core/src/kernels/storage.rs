//! Numbers as caches keep them.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use transmla_checkpoint::StorageDtype;

use super::quantised::QuantisedRow;

/// Numbers in the format that a cache keeps them in.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// 4 bytes each.
    F32(Vec<f32>),
    /// The upper half of an `f32`.
    Bf16(Vec<bf16>),
    /// IEEE half precision; beyond 65504 it is infinite.
    F16(Vec<f16>),
    /// Rows of a latent cache with few bits: how they are laid out, and their bytes. Only whole rows are appended, kept and read.
    Quantised(QuantisedRow, Vec<u8>),
}

impl Stored {
    /// Nothing yet, with room for `capacity` numbers.
    pub fn with_capacity(dtype: StorageDtype, capacity: usize) -> Self {
        match dtype {
            StorageDtype::F32 => Self::F32(Vec::with_capacity(capacity)),
            StorageDtype::Bf16 => Self::Bf16(Vec::with_capacity(capacity)),
            StorageDtype::F16 => Self::F16(Vec::with_capacity(capacity)),
        }
    }

    /// No row yet, with room for `rows`.
    pub fn quantised(row: QuantisedRow, rows: usize) -> Self {
        Self::Quantised(row, Vec::with_capacity(rows * row.bytes()))
    }

    /// Appends numbers, rounded to the nearest that the format has. The room doubles when it runs out.
    pub fn extend(&mut self, numbers: &[f32]) {
        match self {
            Self::F32(kept) => kept.extend_from_slice(numbers),
            Self::Bf16(kept) => kept.extend(numbers.iter().map(|number| bf16::from_f32(*number))),
            Self::F16(kept) => kept.extend(numbers.iter().map(|number| f16::from_f32(*number))),
            Self::Quantised(row, kept) => row.encode(numbers, kept),
        }
    }

    /// Forgets all but the first `len` numbers.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::F32(kept) => kept.truncate(len),
            Self::Bf16(kept) => kept.truncate(len),
            Self::F16(kept) => kept.truncate(len),
            Self::Quantised(row, kept) => kept.truncate(len / row.numbers() * row.bytes()),
        }
    }

    /// Forgets the first `len` numbers. If there is room for more than twice `room` numbers then, the rest of it is given back.
    pub fn forget_first(&mut self, len: usize, room: usize) {
        fn shift<T>(kept: &mut Vec<T>, len: usize, room: usize) {
            kept.drain(..len.min(kept.len()));
            if kept.capacity() > 2 * room {
                kept.shrink_to(room);
            }
        }
        match self {
            Self::F32(kept) => shift(kept, len, room),
            Self::Bf16(kept) => shift(kept, len, room),
            Self::F16(kept) => shift(kept, len, room),
            Self::Quantised(row, kept) => {
                let bytes = |numbers: usize| numbers / row.numbers() * row.bytes();
                shift(kept, bytes(len), bytes(room));
            }
        }
    }

    /// Numbers kept.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that there is room for.
    pub fn allocated_bytes(&self) -> usize {
        match self {
            Self::F32(kept) => kept.capacity() * 4,
            Self::Bf16(kept) => kept.capacity() * 2,
            Self::F16(kept) => kept.capacity() * 2,
            Self::Quantised(_, kept) => kept.capacity(),
        }
    }

    /// All of them.
    pub fn as_slice(&self) -> StoredSlice<'_> {
        match self {
            Self::F32(kept) => StoredSlice::F32(kept),
            Self::Bf16(kept) => StoredSlice::Bf16(kept),
            Self::F16(kept) => StoredSlice::F16(kept),
            Self::Quantised(row, kept) => StoredSlice::Quantised(*row, kept),
        }
    }
}

/// Borrowed numbers in the format that a cache keeps them in.
#[derive(Debug, Clone, Copy)]
pub enum StoredSlice<'a> {
    /// 4 bytes each.
    F32(&'a [f32]),
    /// The upper half of an `f32`.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// Rows of a latent cache with few bits.
    Quantised(QuantisedRow, &'a [u8]),
}

impl<'a> StoredSlice<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::Quantised(row, bytes) => bytes.len() / row.bytes() * row.numbers(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a part, which is of whole rows if rows are quantised.
    pub(super) fn bytes_of(self, start: usize, len: usize) -> (*const i8, usize) {
        match self {
            Self::F32(numbers) => (numbers[start..][..len].as_ptr().cast(), size_of_val(&numbers[..len])),
            Self::Bf16(numbers) => (numbers[start..][..len].as_ptr().cast(), size_of_val(&numbers[..len])),
            Self::F16(numbers) => (numbers[start..][..len].as_ptr().cast(), size_of_val(&numbers[..len])),
            Self::Quantised(row, bytes) => {
                let bytes = row.bytes_of_rows(bytes, start, len);
                (bytes.as_ptr().cast(), bytes.len())
            }
        }
    }

    /// Appends all of them as `f32`.
    pub fn append_to(self, numbers: &mut Vec<f32>) {
        let mut room = Vec::new();
        numbers.extend_from_slice(self.widen(0, self.len(), &mut room));
    }

    /// A part as `f32`: where it lies if that is its format, otherwise converted into `room`.
    pub(super) fn widen<'b>(self, start: usize, len: usize, room: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(numbers) => &numbers[start..][..len],
            Self::Bf16(numbers) => {
                room.resize(len, 0.0);
                widen_bf16(&numbers[start..][..len], room);
                room
            }
            Self::F16(numbers) => {
                room.resize(len, 0.0);
                numbers[start..][..len].convert_to_f32_slice(room);
                room
            }
            Self::Quantised(row, bytes) => {
                room.resize(len, 0.0);
                row.decode(row.bytes_of_rows(bytes, start, len), room);
                room
            }
        }
    }
}

/// A shift of each number: the compiler makes vectors of it, which it does not of the library's way through NaNs.
fn widen_bf16(from: &[bf16], to: &mut [f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to = f32::from_bits(u32::from(from.to_bits()) << 16);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_kept_is_the_nearest_number(numbers in prop::collection::vec(-1e4f32..1e4, 1..70), cut in 0usize..70) {
            for (dtype, precision) in [
                (StorageDtype::F32, 0.0),
                (StorageDtype::Bf16, 1.0 / 256.0),
                (StorageDtype::F16, 1.0 / 2048.0),
            ] {
                let mut kept = Stored::with_capacity(dtype, 3);
                kept.extend(&numbers[..1]);
                kept.extend(&numbers[1..]);
                kept.truncate(cut);
                let len = numbers.len().min(cut);
                prop_assert_eq!(kept.len(), len);
                prop_assert!(kept.allocated_bytes() >= len.max(3) * dtype.bytes());
                let mut room = Vec::new();
                let start = len / 2;
                let found = kept.as_slice().widen(start, len - start, &mut room);
                prop_assert_eq!(found.len(), len - start);
                for (found, number) in found.iter().zip(&numbers[start..]) {
                    prop_assert!((found - number).abs() <= precision * number.abs() + 6e-8, "{}: {}", number, found);
                }
            }
        }
    }
}
