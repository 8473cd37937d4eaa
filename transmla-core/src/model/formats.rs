//! Number formats on devices: which a device knows, and rounding to one.

use burn::tensor::{DType, Device, Tensor, TensorData};
use transmla_checkpoint::StorageDtype;

use crate::host::HostNumbers;

/// burn's name of a format.
pub(super) fn float(dtype: StorageDtype) -> DType {
    match dtype {
        StorageDtype::F32 => DType::F32,
        StorageDtype::Bf16 => DType::BF16,
        StorageDtype::F16 => DType::F16,
    }
}

/// A format on a device: `f32` if it does not know the one asked for.
pub(super) fn format_on(dtype: StorageDtype, device: &Device) -> StorageDtype {
    match device.supports_dtype(float(dtype)) {
        true => dtype,
        false => StorageDtype::F32,
    }
}

/// The nearest numbers that a format has, in `f32`.
pub(super) fn round_to(x: Tensor<2>, dtype: StorageDtype) -> Tensor<2> {
    if let Some(numbers) = HostNumbers::of(x.clone()) {
        let values: Vec<f32> = numbers.as_slice().iter().map(|value| dtype.round(*value)).collect();
        return Tensor::from_data(TensorData::new(values, x.dims()), &Device::flex());
    }
    if format_on(dtype, &x.device()) == dtype {
        return x.cast(float(dtype)).cast(DType::F32);
    }
    round_by_arithmetic(x, dtype)
}

/// [`round_to`] on a device that does not know the format, by Veltkamp's splitting: ties may go either way.
fn round_by_arithmetic(x: Tensor<2>, dtype: StorageDtype) -> Tensor<2> {
    // `bits` fewer than the 24 of f32 are kept.
    let split = |bits: i32| {
        let product = x.clone().mul_scalar(2f32.powi(bits) + 1.0);
        product.clone() - (product - x.clone())
    };
    match dtype {
        StorageDtype::F32 => x,
        StorageDtype::Bf16 => split(16),
        StorageDtype::F16 => {
            // Below 2^-14 all numbers are multiples of 2^-24, and above 65504 there are none.
            let fine = x.clone().mul_scalar(2f32.powi(24)).round().mul_scalar(2f32.powi(-24));
            let rounded = split(13).mask_where(x.clone().abs().lower_elem(2f32.powi(-14)), fine);
            let rounded = rounded.mask_fill(x.clone().greater_equal_elem(65520.0), f32::INFINITY);
            rounded.mask_fill(x.lower_equal_elem(-65520.0), f32::NEG_INFINITY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_rounding_gives_the_same() {
        let values: Vec<f32> = (0..600)
            .map(|i| (i as f32 - 300.5) * 1.37f32.powi(i % 90 - 55))
            .chain([7e4, -7e4, 65519.0, 3e-8, 0.0])
            .collect();
        let x = Tensor::<2>::from_data(TensorData::new(values.clone(), [1, values.len()]), &Device::flex());
        for dtype in [StorageDtype::F32, StorageDtype::Bf16, StorageDtype::F16] {
            let expected: Vec<f32> = values.iter().map(|value| dtype.round(*value)).collect();
            let cast = x.clone().cast(float(dtype)).cast(DType::F32);
            for found in [round_to(x.clone(), dtype), cast, round_by_arithmetic(x.clone(), dtype)] {
                let found: Vec<f32> = found.into_data().iter::<f32>().collect();
                for ((value, found), expected) in values.iter().zip(found).zip(&expected) {
                    assert_eq!(found, *expected, "{dtype}: {value}");
                }
            }
        }
    }
}
