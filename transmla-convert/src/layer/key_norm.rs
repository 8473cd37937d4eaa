//! Keys that are normalised (Qwen3, Gemma 3): the linear maps that stand for them.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use transmla_calib::SecondMoment;
use transmla_core::model::attention::{GroupedAttention, KeyScale};
use transmla_core::model::{DecoderLayer, Linear, RmsNorm};
use transmla_core::{CoreError, host_values};

use crate::layer::ridge::{add_product, change};
use crate::layer::stream::CalibrationStream;
use crate::spec::error::ConvertError;

/// Key weights that stand for normalised keys.
#[derive(Debug, Clone)]
pub struct LinearKeys {
    weights: Vec<f32>,
    rows: usize,
    /// Squared error of the keys on the text that they were fitted on, relative to their power; nothing where they are exact.
    pub error: Option<f64>,
    /// What the exact keys of each head were multiplied by, G of them; empty where they are fitted.
    gains: Vec<f64>,
}

impl LinearKeys {
    /// The keys without the scale of their norm, which is kept for each token: exact. Those of each head are brought to the mean
    /// square that the norm gives them, so that keys and values, and heads among each other, count as they do normalised.
    pub(crate) fn exact(
        weights: MatRef<'_, f64>,
        norm: &RmsNorm,
        moment: &SecondMoment,
        layer: usize,
    ) -> Result<Self, ConvertError> {
        let scales = host_values(norm.weight.clone())?;
        let (head_dim, columns) = (scales.len(), weights.ncols());
        let spread = weights * moment.matrix();
        let gain = |head: usize| {
            let power: f64 = (head * head_dim..(head + 1) * head_dim)
                .map(|i| (0..columns).map(|j| weights[(i, j)] * spread[(i, j)]).sum::<f64>())
                .sum();
            let mean = power / (head_dim as f64 * moment.tokens().max(1) as f64) + norm.eps;
            mean.sqrt().recip()
        };
        let gains: Vec<f64> = (0..weights.nrows() / head_dim).map(gain).collect();
        if gains.iter().any(|gain| !gain.is_finite()) {
            return Err(ConvertError::Activations { layer });
        }
        let factor = |i: usize| gains[i / head_dim] * f64::from(scales[i % head_dim]);
        let row = |i: usize| (0..columns).map(move |j| (factor(i) * weights[(i, j)]) as f32);
        Ok(Self {
            weights: (0..weights.nrows()).flat_map(row).collect(),
            rows: weights.nrows(),
            error: None,
            gains,
        })
    }

    /// What exact keys are to be multiplied by, given the layer's own and their norm; nothing for fitted ones.
    pub(crate) fn scale(&self, keys: &Linear, norm: &RmsNorm, device: &Device) -> Option<KeyScale> {
        let gains: Vec<f32> = self.gains.iter().map(|gain| gain.recip() as f32).collect();
        let heads = gains.len();
        let columns = self.weights.len() / self.rows.max(1);
        // Written with a bias where any projection has one.
        let biased = columns > keys.weight.dims()[1];
        let zeros = || biased.then(|| Tensor::zeros([self.rows], device));
        (heads > 0).then(|| KeyScale {
            k: Linear {
                weight: keys.weight.clone(),
                bias: keys.bias.clone().or_else(zeros),
            },
            gain: Tensor::from_data(TensorData::new(gains, [heads]), device),
            eps: norm.eps,
        })
    }

    /// Everything that they are, as their weights and a few more numbers, for [`Self::from_parts`].
    pub(crate) fn parts(&self) -> (&[f32], Vec<f64>) {
        let more = [self.rows as f64, self.error.unwrap_or(f64::NAN)];
        (
            &self.weights,
            more.into_iter().chain(self.gains.iter().copied()).collect(),
        )
    }

    /// The keys of these numbers, to the bit, or nothing.
    pub(crate) fn from_parts(weights: Vec<f32>, more: &[f64]) -> Option<Self> {
        let (rows, error) = (*more.first()?, *more.get(1)?);
        let rows = rows as usize;
        (rows > 0 && weights.len().is_multiple_of(rows)).then(|| Self {
            weights,
            rows,
            error: (!error.is_nan()).then_some(error),
            gains: more[2..].to_vec(),
        })
    }

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
    ) -> Result<LinearKeys, ConvertError> {
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
        Ok(LinearKeys {
            weights: (0..fitted.nrows()).flat_map(row).collect(),
            rows: fitted.nrows(),
            error: Some(error.max(0.0)),
            gains: Vec::new(),
        })
    }
}
