//! Plain square products.

use std::hint::black_box;

use burn::tensor::{Device, Tensor};
use faer::Mat;

use crate::case::{Case, Timed, within};
use crate::catalogue::Precision;
use crate::numbers::Numbers;

pub(crate) fn build(size: usize, precision: Precision, device: &Device) -> Box<dyn Case> {
    let mut numbers = Numbers::on(device, 1);
    match precision {
        Precision::F32 => Box::new(Single {
            a: numbers.tensor([size, size], 1.0),
            b: numbers.tensor([size, size], 1.0),
        }),
        Precision::F64 => Box::new(Double {
            a: numbers.matrix(size, size),
            b: numbers.matrix(size, size),
        }),
    }
}

struct Single {
    a: Tensor<2>,
    b: Tensor<2>,
}

struct Double {
    a: Mat<f64>,
    b: Mat<f64>,
}

impl Case for Single {
    fn check(&self) -> anyhow::Result<()> {
        let values = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().map(f64::from).collect::<Vec<_>>();
        let size = self.a.dims()[0];
        let first_row = values(self.a.clone().narrow(0, 0, 1));
        let last_column = values(self.b.clone().narrow(1, size - 1, 1));
        let product = values(self.a.clone().matmul(self.b.clone()).narrow(0, 0, 1));
        check_dot(&first_row, &last_column, product[size - 1], 1e-5)
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(self.a.clone().matmul(self.b.clone()));
        })
    }
}

impl Case for Double {
    fn check(&self) -> anyhow::Result<()> {
        let size = self.a.nrows();
        let first_row: Vec<f64> = self.a.row(0).iter().copied().collect();
        let last_column: Vec<f64> = self.b.col(size - 1).iter().copied().collect();
        check_dot(&first_row, &last_column, (&self.a * &self.b)[(0, size - 1)], 1e-13)
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(&self.a * &self.b);
        })
    }
}

/// Compares one element of a product with its definition.
fn check_dot(row: &[f64], column: &[f64], found: f64, tolerance: f64) -> anyhow::Result<()> {
    let terms = || row.iter().zip(column).map(|(a, b)| a * b);
    let expected: f64 = terms().sum();
    within(
        "an element",
        (found - expected).abs(),
        terms().map(f64::abs).sum(),
        tolerance,
    )
}
