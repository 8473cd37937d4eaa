//! Small pieces of the arithmetic that a conversion is made of, to be timed by whoever has a clock.

use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, Side};
use transmla_core::{CoreError, ModelConfig, host_values};

use crate::solve::work::Work;

/// One kind of [`Work`] on a device, in pieces shaped like a model's.
#[derive(Debug)]
pub struct Probe {
    kind: ProbeKind,
    /// Operations, or numbers, of one piece.
    amount: f64,
}

#[derive(Debug)]
enum ProbeKind {
    Products(Box<[Tensor<2>; 2]>),
    Elements(Box<Tensor<2>>),
    Host(Mat<f64>),
}

/// Most operations of a piece: a few hundredths of a second on a desktop's processor.
const LARGEST: usize = 1 << 30;

/// Widest matrices of a piece.
const WIDEST: usize = 2048;

/// Most rows of a piece.
const LONGEST: usize = 2048;

/// Most rows of a matrix whose eigenvectors are found.
const LARGEST_EIGEN: usize = 192;

/// Elementwise operations of a piece, as [`Work`] counts those of a gated activation.
const GATE: f64 = 6.0;

impl Probe {
    /// Products of a batch with a matrix of the model's feed-forward layers, or a part of it.
    pub fn products(source: &ModelConfig, device: &Device) -> Self {
        let (inner, columns) = (source.hidden_size.min(WIDEST), source.intermediate_size.min(WIDEST));
        let rows = (LARGEST / (2 * inner * columns).max(1)).clamp(16, LONGEST);
        Self {
            kind: ProbeKind::Products(Box::new([
                numbers(rows, inner, device),
                numbers(inner, columns, device),
            ])),
            amount: 2.0 * (rows * inner * columns) as f64,
        }
    }

    /// Gated activations of a batch.
    pub fn elements(source: &ModelConfig, device: &Device) -> Self {
        let columns = source.intermediate_size.min(WIDEST);
        Self {
            kind: ProbeKind::Elements(Box::new(numbers(LONGEST / 2, columns, device))),
            amount: GATE * (LONGEST / 2 * columns) as f64,
        }
    }

    /// Eigenvectors on the host.
    pub fn host(source: &ModelConfig) -> Self {
        let rows = source.hidden_size.min(LARGEST_EIGEN);
        Self {
            kind: ProbeKind::Host(Mat::from_fn(rows, rows, |i, j| 1.0 / (1 + i.max(j)) as f64)),
            amount: Work::eigenvectors(rows as f64).host,
        }
    }

    /// Does one piece; gives its amount: operations, or numbers.
    ///
    /// # Errors
    /// The device fails.
    pub fn run(&self) -> Result<f64, CoreError> {
        match &self.kind {
            ProbeKind::Products(pair) => {
                let [left, right] = pair.as_ref().clone();
                wait(left.matmul(right))?;
            }
            ProbeKind::Elements(numbers) => {
                let numbers = numbers.as_ref().clone();
                wait(silu(numbers.clone()) * numbers)?;
            }
            ProbeKind::Host(matrix) => {
                let found = matrix.self_adjoint_eigen(Side::Lower);
                found.map_err(|_| CoreError::Execution("a matrix has no eigenvectors".into()))?;
            }
        }
        Ok(self.amount)
    }
}

/// Waits until a device is done: a number of the result is read.
fn wait(result: Tensor<2>) -> Result<(), CoreError> {
    host_values(result.narrow(0, 0, 1).narrow(1, 0, 1)).map(drop)
}

fn numbers(rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * columns).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}
