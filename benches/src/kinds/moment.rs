//! The second moment of a batch, compared with the matrix product at its core.

use std::cell::RefCell;
use std::hint::black_box;

use burn::tensor::Tensor;
use transmla_calib::SecondMoment;

use crate::case::{Case, Timed, within};
use crate::numbers::Numbers;

pub(crate) fn build(rows: usize, width: usize) -> Box<dyn Case> {
    Box::new(Moment {
        inputs: Numbers::new(2).tensor([rows, width], 1.0),
        sum: RefCell::new(SecondMoment::new(width, false)),
    })
}

struct Moment {
    inputs: Tensor<2>,
    sum: RefCell<SecondMoment>,
}

impl Moment {
    fn product(&self) -> Tensor<2> {
        self.inputs.clone().transpose().matmul(self.inputs.clone())
    }
}

impl Case for Moment {
    fn check(&self) -> anyhow::Result<()> {
        let width = self.inputs.dims()[1];
        let mut moment = SecondMoment::new(width, false);
        // Twice, to see that it adds.
        for _ in 0..2 {
            moment.add(&self.inputs)?;
        }
        let expected: Vec<f32> = self.product().into_data().iter::<f32>().collect();
        let found = moment.matrix();
        let difference =
            |index: usize| (found[(index / width, index % width)] - 2.0 * f64::from(expected[index])).abs();
        let worst = (0..width * width).map(difference).fold(0.0, f64::max);
        within("second-moment", worst, found.norm_max(), 1e-5)
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                black_box(self.product());
            }),
            _ => Box::new(|| {
                self.sum.borrow_mut().add(&self.inputs).expect("the width fits");
            }),
        }
    }
}
