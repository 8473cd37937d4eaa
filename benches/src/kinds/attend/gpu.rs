//! The fused kernel of GPUs, with one tensor for all heads.

use burn::tensor::{DType, Tensor};
use transmla_core::kernels::{CachedValues, decode_is_fused, decode_tensors};
use transmla_core::{CacheFormat, StorageDtype};

use super::operands::{FORMATS, Fused, Operands};

pub(super) struct Caches {
    /// `None` for formats that the device does not support, or the kernel.
    formats: [Option<(Tensor<4>, CachedValues)>; FORMATS.len()],
}

impl Caches {
    pub(super) fn new(operands: &Operands) -> Self {
        let device = operands.keys.device();
        let stored = |format: CacheFormat| {
            let dtype = match format {
                CacheFormat::Plain(StorageDtype::F32) => DType::F32,
                CacheFormat::Plain(StorageDtype::Bf16) => DType::BF16,
                CacheFormat::Plain(StorageDtype::F16) => DType::F16,
                CacheFormat::Quantised(_) => return None,
            };
            device.supports_dtype(dtype).then(|| {
                let values = match operands.shape.latent {
                    true => CachedValues::InKeys(operands.shape.value_width),
                    false => CachedValues::Apart(operands.values.clone().cast(dtype)),
                };
                (operands.keys.clone().cast(dtype), values)
            })
        };
        Self {
            formats: FORMATS.map(stored),
        }
    }
}

impl Fused for Caches {
    fn attend(&self, operands: &Operands, format: usize) -> Tensor<4> {
        let (keys, values) = self.formats[format].clone().expect("only formats that there are");
        decode_tensors(
            operands.q.clone(),
            keys,
            values,
            &[operands.tokens()],
            &operands.parameters,
        )
    }

    /// False if plain tensor operations would run in its place.
    fn has(&self, operands: &Operands, format: usize) -> bool {
        self.formats[format].as_ref().is_some_and(|(keys, values)| {
            decode_is_fused(&operands.q, keys, values, &[operands.tokens()], &operands.parameters)
        })
    }
}
