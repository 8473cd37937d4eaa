//! The queries of one token against a cache: the kernels alone, without projections.

use std::hint::black_box;

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use transmla_core::StorageDtype;
use transmla_core::kernels::{CachedHead, DecodeShape, Scoring, Stored, decode, plain_decode};

use crate::case::{Case, Timed, compare};
use crate::catalogue::Attend;
use crate::numbers::Numbers;

/// Formats of the fused strategies, in the catalogue's order after the two of tensor operations.
const DTYPES: [StorageDtype; 3] = [StorageDtype::F32, StorageDtype::Bf16, StorageDtype::F16];

pub(crate) fn build(shape: Attend, context: usize) -> Box<dyn Case> {
    let mut numbers = Numbers::new(7);
    let Attend {
        groups,
        shared,
        width,
        value_width,
        latent,
    } = shape;
    let keys = numbers.tensor([1, groups, context, width], 1.0);
    let values = match latent {
        true => None,
        false => Some(numbers.tensor([1, groups, context, value_width], 1.0)),
    };
    let stored = |rows: &Tensor<4>| DTYPES.map(|dtype| heads_of(rows, dtype));
    Box::new(Attending {
        shape,
        scoring: Scoring::of_width(width),
        q: numbers.tensor([1, groups * shared, 1, width], 2.0),
        stored_keys: stored(&keys),
        stored_values: values.as_ref().map(stored),
        values: values.unwrap_or_else(|| keys.clone().narrow(3, 0, value_width)),
        keys,
    })
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

struct Attending {
    shape: Attend,
    scoring: Scoring,
    /// `[1, H, 1, width]`
    q: Tensor<4>,
    /// `[1, G, tokens, width]`
    keys: Tensor<4>,
    /// `[1, G, tokens, d_v]`
    values: Tensor<4>,
    stored_keys: [Vec<Stored>; 3],
    stored_values: Option<[Vec<Stored>; 3]>,
}

impl Attending {
    fn plain(&self) -> Tensor<4> {
        let tokens = self.keys.dims()[2];
        let (keys, values) = (self.keys.clone(), self.values.clone());
        plain_decode(self.q.clone(), keys, values, &[tokens], &self.scoring)
    }

    /// The heads that share keys are the rows of one query, since all of them see every token.
    fn burn(&self) -> Tensor<4> {
        let Attend {
            groups,
            shared,
            width,
            value_width,
            ..
        } = self.shape;
        let q = self.q.clone().reshape([1, groups, shared, width]);
        let options = AttentionModuleOptions::default();
        let (keys, values) = (self.keys.clone(), self.values.clone());
        attention(q, keys, values, None, None, options).reshape([1, groups * shared, 1, value_width])
    }

    fn fused(&self, format: usize) -> Vec<f32> {
        let shape = DecodeShape {
            shared: self.shape.shared,
            new: 1,
            width: self.shape.width,
            value_width: self.shape.value_width,
        };
        let values = self.stored_values.as_ref().map(|values| &values[format]);
        let heads = self.stored_keys[format]
            .iter()
            .enumerate()
            .map(|(head, keys)| CachedHead {
                keys: keys.as_slice(),
                values: values.map(|values| values[head].as_slice()),
            });
        let q = self.q.clone().into_data();
        let q = q.as_slice::<f32>().unwrap_or_default();
        decode(&shape, &self.scoring, q, &heads.collect::<Vec<_>>())
    }
}

impl Case for Attending {
    fn check(&self) -> Result<(), String> {
        let plain = self.plain();
        compare("burn", &self.burn(), &plain, 1e-4)?;
        for (format, dtype) in DTYPES.into_iter().enumerate() {
            let fused = TensorData::new(self.fused(format), plain.dims());
            let tolerance = match dtype {
                StorageDtype::F32 => 1e-4,
                StorageDtype::F16 => 1e-2,
                StorageDtype::Bf16 => 5e-2,
            };
            let fused = Tensor::from_data(fused, &Device::flex());
            compare(&format!("fused in {dtype}"), &fused, &plain, tolerance)?;
        }
        Ok(())
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                black_box(self.plain());
            }),
            1 => Box::new(|| {
                black_box(self.burn());
            }),
            fused => Box::new(move || {
                black_box(self.fused(fused - 2));
            }),
        }
    }
}
