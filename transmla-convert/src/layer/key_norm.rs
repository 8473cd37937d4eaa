//! Keys that are normalised (Qwen3, Gemma 3): the linear map of the inputs that is closest to them.

use faer::{Mat, MatRef};
use transmla_calib::SecondMoment;
use transmla_core::model::attention::GroupedAttention;
use transmla_core::model::{DecoderLayer, RmsNorm};
use transmla_core::{CoreError, host_values};

use crate::layer::ridge::{add_product, change};
use crate::layer::stream::CalibrationStream;
use crate::spec::error::ConvertError;

/// Key weights that stand for normalised keys.
#[derive(Debug, Clone)]
pub struct FittedKeys {
    weights: Vec<f32>,
    rows: usize,
    /// Squared error of the keys on the text that they were fitted on, relative to their power.
    pub error: f64,
}

impl FittedKeys {
    /// `[G·d, hidden (+ 1)]`.
    pub(crate) fn weights(&self) -> Mat<f64> {
        let columns = self.weights.len() / self.rows.max(1);
        Mat::from_fn(self.rows, columns, |i, j| f64::from(self.weights[i * columns + j]))
    }
}

/// What a fit needs of the text: products of normalised keys and inputs, beside the inputs' second moment.
#[derive(Debug, Clone)]
pub(crate) struct KeyMoment {
    /// `[G·d, hidden (+ 1)]`.
    cross: Mat<f64>,
    power: f64,
}

impl KeyMoment {
    /// Of everything that the stream shows the layer.
    pub fn collect(
        stream: &CalibrationStream,
        layer: &DecoderLayer,
        attention: &GroupedAttention,
        constant: bool,
    ) -> Result<Self, CoreError> {
        let [rows, hidden] = attention.k.weight.dims();
        let mut moment = Self {
            cross: Mat::zeros(rows, hidden + usize::from(constant)),
            power: 0.0,
        };
        stream.inputs(layer, &mut |x| {
            let keys = attention.keys(x.clone());
            moment.power += host_values(keys.clone().square().sum_dim(0))?
                .into_iter()
                .map(f64::from)
                .sum::<f64>();
            if constant {
                let sums = host_values(keys.clone().sum_dim(0))?;
                let column = moment.cross.col_as_slice_mut(hidden);
                column
                    .iter_mut()
                    .zip(sums)
                    .for_each(|(sum, value)| *sum += f64::from(value));
            }
            add_product(&mut moment.cross, keys, x)?;
            Ok(())
        })?;
        Ok(moment)
    }

    /// Adds the moment of more text.
    pub fn merge(&mut self, other: &Self) {
        self.cross += &other.cross;
        self.power += other.power;
    }

    /// The weights W that minimise the squared error of `W x` as a normalised key.
    ///
    /// A later PCA of `W x` is the reduced-rank regression of the normalised keys: what no linear map reaches is
    /// uncorrelated with the inputs. The ridge draws W to each head's weights times their best constant.
    ///
    /// # Errors
    /// The second moment cannot be solved with.
    pub fn fit(
        &self,
        weights: MatRef<'_, f64>,
        norm: &RmsNorm,
        moment: &SecondMoment,
        layer: usize,
    ) -> Result<FittedKeys, ConvertError> {
        let moment = moment.matrix();
        let size = moment.nrows();
        let scales = host_values(norm.weight.clone())?;
        let mut start = Mat::from_fn(weights.nrows(), size, |i, j| {
            f64::from(scales[i % scales.len()]) * weights[(i, j)]
        });
        let spread = &start * moment;
        for head in 0..start.nrows() / scales.len() {
            let rows = head * scales.len()..(head + 1) * scales.len();
            let product = |other: &Mat<f64>| -> f64 {
                let row = |i: usize| (0..size).map(|j| start[(i, j)] * other[(i, j)]).sum::<f64>();
                rows.clone().map(row).sum()
            };
            let best = product(&self.cross) / product(&spread).max(f64::MIN_POSITIVE);
            for i in rows {
                start.row_mut(i).iter_mut().for_each(|value| *value *= best);
            }
        }
        let rest = &self.cross - &start * moment;
        let change = change(moment.to_owned(), rest.transpose()).ok_or(ConvertError::Activations { layer })?;
        let fitted = start + change.transpose();
        let spread = &fitted * moment;
        let sum = |other: &Mat<f64>| -> f64 {
            let column = |j: usize| (0..fitted.nrows()).map(|i| fitted[(i, j)] * other[(i, j)]).sum::<f64>();
            (0..size).map(column).sum()
        };
        let error = (self.power - 2.0 * sum(&self.cross) + sum(&spread)) / self.power.max(f64::MIN_POSITIVE);
        if !error.is_finite() {
            return Err(ConvertError::Activations { layer });
        }
        let row = |i: usize| (0..size).map(|j| fitted[(i, j)] as f32).collect::<Vec<_>>();
        Ok(FittedKeys {
            weights: (0..fitted.nrows()).flat_map(row).collect(),
            rows: fitted.nrows(),
            error: error.max(0.0),
        })
    }
}
