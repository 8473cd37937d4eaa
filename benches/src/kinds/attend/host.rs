//! The fused kernel of the CPU, with one buffer for each head.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_core::CacheFormat;
use transmla_core::kernels::{CachedHead, DecodeShape, QuantisedRow, Stored, decode};

use crate::catalogue::Attend;

use super::operands::{FORMATS, Fused, Operands};

pub(super) struct Caches {
    /// Nothing for formats that the shape cannot have.
    keys: [Vec<Stored>; FORMATS.len()],
    /// `None` where values are in the keys.
    values: Option<[Vec<Stored>; FORMATS.len()]>,
}

impl Caches {
    pub(super) fn new(operands: &Operands) -> Self {
        let stored = |rows: &Tensor<4>| FORMATS.map(|format| heads_of(rows, operands.shape, format));
        Self {
            keys: stored(&operands.keys),
            values: (!operands.shape.latent).then(|| stored(&operands.values)),
        }
    }
}

/// One buffer for each head.
fn heads_of(rows: &Tensor<4>, shape: Attend, format: CacheFormat) -> Vec<Stored> {
    let [_, _, tokens, width] = rows.dims();
    if format.is_quantised() && !shape.latent {
        return Vec::new();
    }
    let numbers: Vec<f32> = rows.clone().into_data().iter::<f32>().collect();
    let head = |numbers: &[f32]| {
        let mut stored = match format {
            CacheFormat::Plain(dtype) => Stored::with_capacity(dtype, numbers.len()),
            CacheFormat::Quantised(quantisation) => {
                let row = QuantisedRow::new(quantisation, shape.value_width, width - shape.value_width);
                Stored::quantised(row, tokens)
            }
        };
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

    fn kept(&self, operands: &Operands, format: usize) -> Option<Tensor<4>> {
        FORMATS[format].is_quantised().then(|| {
            let mut numbers = Vec::new();
            for head in &self.keys[format] {
                head.as_slice().append_to(&mut numbers);
            }
            Tensor::from_data(TensorData::new(numbers, operands.keys.dims()), &Device::flex())
        })
    }

    fn has(&self, _: &Operands, format: usize) -> bool {
        !self.keys[format].is_empty()
    }
}
