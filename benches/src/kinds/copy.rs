//! A copy as in the STREAM benchmark: the memory bandwidth of this machine or device.

use std::cell::RefCell;
use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use crate::case::{Case, Timed, compare};
use crate::numbers::Numbers;

/// Numbers that a thread copies at a time.
const PIECE: usize = 1 << 18;

pub(crate) fn build(numbers: usize, device: &Device) -> Box<dyn Case> {
    if *device != Device::flex() {
        return Box::new(DeviceCopy {
            from: Numbers::on(device, 2).tensor([numbers], 1.0),
        });
    }
    Box::new(HostCopy {
        from: (0..numbers).map(|number| number as f32).collect(),
        to: RefCell::new(vec![0.0; numbers]),
    })
}

/// By all threads.
struct HostCopy {
    from: Vec<f32>,
    to: RefCell<Vec<f32>>,
}

impl HostCopy {
    fn copy(&self) {
        let mut to = self.to.borrow_mut();
        let pieces = to.par_chunks_mut(PIECE).zip(self.from.par_chunks(PIECE));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
    }
}

impl Case for HostCopy {
    fn check(&self) -> anyhow::Result<()> {
        self.copy();
        match *self.to.borrow() == self.from {
            true => Ok(()),
            false => anyhow::bail!("the copy differs"),
        }
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| self.copy())
    }
}

/// By a kernel of the device. burn defers copies, so every number is multiplied by one.
struct DeviceCopy {
    from: Tensor<1>,
}

impl DeviceCopy {
    fn copy(&self) -> Tensor<1> {
        self.from.clone().mul_scalar(1.0)
    }
}

impl Case for DeviceCopy {
    fn check(&self) -> anyhow::Result<()> {
        compare("the copy", &self.copy(), &self.from, 0.0)
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(self.copy());
        })
    }
}
