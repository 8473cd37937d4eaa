//! The fused kernel of the CPU, with one buffer for each head.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_core::StorageDtype;
use transmla_core::kernels::{CachedHead, DecodeShape, Stored, decode};

use super::operands::{DTYPES, Fused, Operands};

pub(super) struct Caches {
    keys: [Vec<Stored>; 3],
    /// `None` where values are in the keys.
    values: Option<[Vec<Stored>; 3]>,
}

impl Caches {
    pub(super) fn new(operands: &Operands) -> Self {
        let stored = |rows: &Tensor<4>| DTYPES.map(|dtype| heads_of(rows, dtype));
        Self {
            keys: stored(&operands.keys),
            values: (!operands.shape.latent).then(|| stored(&operands.values)),
        }
    }
}

/// One buffer for each head.
fn heads_of(rows: &Tensor<4>, dtype: StorageDtype) -> Vec<Stored> {
    let [_, _, tokens, width] = rows.dims();
    let numbers: Vec<f32> = rows.clone().into_data().iter::<f32>().collect();
    let head = |numbers: &[f32]| {
        let mut stored = Stored::with_capacity(dtype, numbers.len());
        stored.extend(numbers);
        stored
    };
    numbers.chunks_exact(tokens * width).map(head).collect()
}

impl Fused for Caches {
    fn attend(&self, operands: &Operands, format: usize) -> Tensor<4> {
        let shape = DecodeShape {
            shared: operands.shape.shared,
            new: 1,
            width: operands.shape.width,
            value_width: operands.shape.value_width,
            scales: 0,
        };
        let values = self.values.as_ref().map(|values| &values[format]);
        let heads = self.keys[format].iter().enumerate().map(|(head, keys)| CachedHead {
            keys: keys.as_slice(),
            values: values.map(|values| values[head].as_slice()),
        });
        let q = operands.q.clone().into_data();
        let q = q.as_slice::<f32>().unwrap_or_default();
        let attended = decode(&shape, &operands.parameters, q, &heads.collect::<Vec<_>>());
        let [batch, heads, new, _] = operands.q.dims();
        let attended = TensorData::new(attended, [batch, heads, new, shape.value_width]);
        Tensor::from_data(attended, &Device::flex())
    }

    fn has(&self, _: &Operands, _: usize) -> bool {
        true
    }
}
