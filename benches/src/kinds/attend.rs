//! Attention of one token to a cache: the kernels alone, without projections.
//!
//! Plain tensor operations and burn's attention are the same everywhere; the fused kernel is one of the CPU (`host`) or of a
//! GPU (`gpu`).

mod gpu;
mod host;
mod operands;

use std::hint::black_box;

use burn::tensor::Device;
use transmla_core::{CacheFormat, StorageDtype};

use self::operands::{FORMATS, Fused, Operands};
use crate::case::{Case, Timed, compare};
use crate::catalogue::Attend;

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
    fn check(&self) -> anyhow::Result<()> {
        let plain = self.operands.plain();
        compare("burn", &self.operands.burn(), &plain, 1e-4)?;
        for (index, format) in FORMATS.into_iter().enumerate() {
            if !self.fused.has(&self.operands, index) {
                continue;
            }
            let tolerance = match format {
                CacheFormat::Plain(StorageDtype::F32) | CacheFormat::Quantised(_) => 1e-4,
                CacheFormat::Plain(StorageDtype::F16) => 1e-2,
                CacheFormat::Plain(StorageDtype::Bf16) => 5e-2,
            };
            let fused = self.fused.attend(&self.operands, index);
            // Of few bits the kernel is checked on what they stand for.
            let expected = match self.fused.kept(&self.operands, index) {
                Some(kept) => self.operands.plain_of_kept(kept),
                None => plain.clone(),
            };
            compare(&format!("fused in {format}"), &fused, &expected, tolerance)?;
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
