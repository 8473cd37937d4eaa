//! The queries of one token against a cache: the kernels alone, without projections.
//!
//! Plain tensor operations and burn's attention are the same everywhere; the fused kernel is one of the CPU (`host`) or of a
//! GPU (`gpu`).

mod gpu;
mod host;

use std::hint::black_box;

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor};
use transmla_core::StorageDtype;
use transmla_core::kernels::{AttentionParameters, plain_decode};

use crate::case::{Case, Timed, compare};
use crate::catalogue::Attend;
use crate::numbers::Numbers;

/// Formats of the fused strategies, in the catalogue's order after the two of tensor operations.
const DTYPES: [StorageDtype; 3] = [StorageDtype::F32, StorageDtype::Bf16, StorageDtype::F16];

/// Index of the first fused strategy.
const FUSED: usize = 2;

pub(crate) fn build(shape: Attend, context: usize, device: &Device) -> Box<dyn Case> {
    Box::new(Attending::new(shape, context, device))
}

/// Whether a device has a strategy.
pub(crate) fn has(shape: Attend, strategy: usize, device: &Device) -> bool {
    let Some(format) = strategy.checked_sub(FUSED) else {
        return true;
    };
    // The context makes no difference to that.
    let Attending { operands, fused } = Attending::new(shape, 1, device);
    fused.has(&operands, format)
}

/// A fused kernel with its caches.
trait Fused {
    /// `[1, H, 1, d_v]` from the cache of one format.
    fn attend(&self, operands: &Operands, format: usize) -> Tensor<4>;

    /// Whether it has that format.
    fn has(&self, operands: &Operands, format: usize) -> bool;
}

struct Operands {
    shape: Attend,
    parameters: AttentionParameters,
    /// `[1, H, 1, width]`
    q: Tensor<4>,
    /// `[1, G, tokens, width]`
    keys: Tensor<4>,
    /// `[1, G, tokens, d_v]`
    values: Tensor<4>,
}

impl Operands {
    fn new(shape: Attend, context: usize, device: &Device) -> Self {
        let mut numbers = Numbers::on(device, 7);
        let Attend {
            groups,
            shared,
            width,
            value_width,
            latent,
        } = shape;
        let keys = numbers.tensor([1, groups, context, width], 1.0);
        let values = match latent {
            true => keys.clone().narrow(3, 0, value_width),
            false => numbers.tensor([1, groups, context, value_width], 1.0),
        };
        Self {
            shape,
            parameters: AttentionParameters::of_width(width),
            q: numbers.tensor([1, groups * shared, 1, width], 2.0),
            keys,
            values,
        }
    }

    fn tokens(&self) -> usize {
        self.keys.dims()[2]
    }

    fn plain(&self) -> Tensor<4> {
        let (keys, values) = (self.keys.clone(), self.values.clone());
        plain_decode(self.q.clone(), keys, values, &[self.tokens()], &self.parameters)
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
}

struct Attending {
    operands: Operands,
    fused: Box<dyn Fused>,
}

impl Attending {
    fn new(shape: Attend, context: usize, device: &Device) -> Self {
        let operands = Operands::new(shape, context, device);
        let fused: Box<dyn Fused> = match *device == Device::flex() {
            true => Box::new(host::Caches::new(&operands)),
            false => Box::new(gpu::Caches::new(&operands)),
        };
        Self { operands, fused }
    }
}

impl Case for Attending {
    fn check(&self) -> Result<(), String> {
        let plain = self.operands.plain();
        compare("burn", &self.operands.burn(), &plain, 1e-4)?;
        for (format, dtype) in DTYPES.into_iter().enumerate() {
            if !self.fused.has(&self.operands, format) {
                continue;
            }
            let tolerance = match dtype {
                StorageDtype::F32 => 1e-4,
                StorageDtype::F16 => 1e-2,
                StorageDtype::Bf16 => 5e-2,
            };
            let fused = self.fused.attend(&self.operands, format);
            compare(&format!("fused in {dtype}"), &fused, &plain, tolerance)?;
        }
        Ok(())
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                black_box(self.operands.plain());
            }),
            1 => Box::new(|| {
                black_box(self.operands.burn());
            }),
            fused => Box::new(move || {
                black_box(self.fused.attend(&self.operands, fused - FUSED));
            }),
        }
    }
}
