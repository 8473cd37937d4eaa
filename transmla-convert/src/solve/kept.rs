//! What of a method's work outlives memory and run: statistics of the original, part by part.

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use transmla_core::{CheckpointError, CoreError, TokenBatch, host_values};

use crate::spec::error::ConvertError;

/// What some statistics of the original are, and what they follow from beside its weights and its device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Basis<'a> {
    /// What they are, in a word that a folder may have as its name.
    pub name: &'static str,
    /// The text that they are taken from.
    pub text: &'a TokenBatch,
    /// Everything else that they follow from.
    pub options: &'a str,
}

/// Where statistics are kept until the models that need them stand.
pub(crate) trait StatisticsStore {
    /// The place of statistics that follow from `basis`; what is there follows from the same.
    ///
    /// # Errors
    /// The original's weights cannot be read, or have changed since they were opened.
    fn open(&mut self, basis: &Basis<'_>) -> Result<Box<dyn Kept>, ConvertError>;
}

/// Parts of statistics by name, each of which is there as it was written, or not at all.
pub(crate) trait Kept {
    /// Keeps a part, in the place of what goes by its name, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written: the disk is full, for instance.
    fn write(&mut self, part: &str, contents: Vec<u8>) -> Result<(), ConvertError>;

    /// A part; nothing where it is not there, or is not what was written.
    fn read(&self, part: &str) -> Option<Vec<u8>>;

    /// Removes a part, if it is there.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&mut self, part: &str) -> Result<(), ConvertError>;

    /// The error of a part that was there and is not any more.
    fn lost(&self, part: &str) -> ConvertError;
}

/// Keeps nothing: for callers without a place.
pub(crate) struct NothingKept;

impl Kept for NothingKept {
    fn write(&mut self, _: &str, _: Vec<u8>) -> Result<(), ConvertError> {
        Ok(())
    }

    fn read(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn remove(&mut self, _: &str) -> Result<(), ConvertError> {
        Ok(())
    }

    fn lost(&self, part: &str) -> ConvertError {
        let error = CheckpointError::File {
            path: part.into(),
            problem: "it is kept nowhere".into(),
        };
        CoreError::from(error).into()
    }
}

/// A number format that parts are in.
pub(crate) trait Packed: Sized + Copy + 'static {
    /// Bytes of a number.
    const BYTES: usize;

    fn put(self, into: &mut Vec<u8>);

    /// From so many bytes.
    fn get(bytes: &[u8]) -> Option<Self>;
}

macro_rules! packed {
    ($($number:ty),*) => {$(
        impl Packed for $number {
            const BYTES: usize = size_of::<Self>();

            fn put(self, into: &mut Vec<u8>) {
                into.extend_from_slice(&self.to_le_bytes());
            }

            fn get(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}

packed!(f32, f64, bf16, u64);

/// Numbers as bytes, to the bit.
pub(crate) fn pack<T: Packed>(numbers: impl IntoIterator<Item = T>) -> Vec<u8> {
    let numbers = numbers.into_iter();
    let mut bytes = Vec::with_capacity(numbers.size_hint().0 * T::BYTES);
    numbers.for_each(|number| number.put(&mut bytes));
    bytes
}

/// So many numbers from bytes, if that is how many there are.
pub(crate) fn unpack<T: Packed>(bytes: &[u8], count: usize) -> Option<impl Iterator<Item = T> + '_> {
    let all = bytes.len() == count.checked_mul(T::BYTES)?;
    all.then(|| bytes.chunks_exact(T::BYTES).filter_map(T::get))
}

/// Keeps a tensor in f32.
pub(crate) fn keep_tensor<const D: usize>(
    kept: &mut dyn Kept,
    part: &str,
    tensor: Tensor<D>,
) -> Result<(), ConvertError> {
    kept.write(part, pack(host_values(tensor)?))
}

/// A tensor that [`keep_tensor`] has kept, or nothing.
pub(crate) fn kept_tensor<const D: usize>(
    kept: &dyn Kept,
    part: &str,
    shape: [usize; D],
    device: &Device,
) -> Option<Tensor<D>> {
    let bytes = kept.read(part)?;
    let values: Vec<f32> = unpack(&bytes, shape.iter().product())?.collect();
    Some(Tensor::from_data(TensorData::new(values, shape), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_to_the_bit() {
        let numbers = [0.1, -0.0, f64::MIN_POSITIVE / 3.0, f64::NAN];
        let found: Vec<f64> = unpack(&pack(numbers), 4).unwrap().collect();
        assert_eq!(found.map_bits(), numbers.to_vec().map_bits());
        let halves = [1.0, 2.5].map(bf16::from_f32);
        assert_eq!(unpack::<bf16>(&pack(halves), 2).unwrap().collect::<Vec<_>>(), halves);
        assert!(unpack::<f32>(&pack([1f32, 2.0]), 3).is_none());
        assert!(unpack::<f32>(&[0; 9], 2).is_none());
    }

    trait Bits {
        fn map_bits(&self) -> Vec<u64>;
    }

    impl Bits for Vec<f64> {
        fn map_bits(&self) -> Vec<u64> {
            self.iter().map(|number| number.to_bits()).collect()
        }
    }
}
