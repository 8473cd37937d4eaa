//! What is trained: projections in f32, each with its moments, all at once or by a low-rank change.

use burn::tensor::{Device, Tensor, TensorData};
use transmla_core::model::Projections;
use transmla_core::{CoreError, DecoderLayer, host_values};

use crate::heal::adam::{Moments, StepSize, units};
use crate::heal::splitmix::SplitMix;
use crate::spec::healing::{Healing, Trained};

/// A projection that is trained.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// `LAYER.NAME`, by which its tensors go in a saved state.
    pub key: String,
    /// As it is used now, `[out, in]`.
    pub value: Tensor<2>,
    units: Tensor<2>,
    form: Form,
}

/// Reads a tensor of a saved state by its name and shape.
pub(crate) type ReadTensor<'a, E> = dyn FnMut(&str, [usize; 2]) -> Result<Tensor<2>, E> + 'a;

/// What of it moves.
#[derive(Debug, Clone)]
enum Form {
    Whole(Box<Moments>),
    LowRank(Box<LowRank>),
}

/// `value = start + units · (up down)`.
#[derive(Debug, Clone)]
struct LowRank {
    start: Tensor<2>,
    up: Factor,
    down: Factor,
}

impl LowRank {
    fn value(&self, units: &Tensor<2>) -> Tensor<2> {
        self.start.clone() + self.up.value.clone().matmul(self.down.value.clone()) * units.clone()
    }
}

/// A factor of a low-rank change, with its moments.
#[derive(Debug, Clone)]
struct Factor {
    value: Tensor<2>,
    moments: Moments,
}

impl Factor {
    fn new(value: Tensor<2>) -> Self {
        Self {
            moments: Moments::of(&value),
            value,
        }
    }
}

/// Which projections a healing goes over.
pub(crate) fn projections(healing: &Healing) -> Projections {
    match healing.train {
        Trained::Attention | Trained::Lora => Projections::Attention,
        Trained::All => Projections::All,
    }
}

/// The weights of a layer before the training, in the order in which its gradients come.
///
/// # Errors
/// An expert cannot be read.
pub(crate) fn of_layer(layer: &DecoderLayer, index: usize, healing: &Healing) -> Result<Vec<Weights>, CoreError> {
    let mut found = Vec::new();
    layer
        .clone()
        .map_projections(projections(healing), &mut |name, value| {
            let key = format!("{index}.{name}");
            found.push(Weights::new(key, value.clone(), healing));
            value
        })?;
    Ok(found)
}

impl Weights {
    fn new(key: String, value: Tensor<2>, healing: &Healing) -> Self {
        let [rows, columns] = value.dims();
        let form = match healing.train {
            // A low-rank change of a bias would be the bias again.
            Trained::Lora if columns > 1 => {
                let rank = healing.lora_rank.min(rows).min(columns);
                let seed = healing.text.seed ^ key.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
                // Rows of about unit length.
                let down = random([rank, columns], seed, &value.device()).div_scalar((columns as f64).sqrt());
                Form::LowRank(Box::new(LowRank {
                    start: value.clone(),
                    up: Factor::new(Tensor::zeros([rows, rank], &value.device())),
                    down: Factor::new(down),
                }))
            }
            Trained::Attention | Trained::All | Trained::Lora => Form::Whole(Box::new(Moments::of(&value))),
        };
        Self {
            key,
            units: units(&value),
            value,
            form,
        }
    }

    /// The gradients of what moves, given that of the projection.
    pub fn gradients(&self, gradient: Tensor<2>) -> Vec<Tensor<2>> {
        let gradient = gradient * self.units.clone();
        match &self.form {
            Form::Whole(_) => vec![gradient],
            Form::LowRank(change) => vec![
                gradient.clone().matmul(change.down.value.clone().transpose()),
                change.up.value.clone().transpose().matmul(gradient),
            ],
        }
    }

    /// A step against such gradients, the `count`th from 1 on.
    pub fn step(&mut self, gradients: Vec<Tensor<2>>, size: StepSize, count: usize) {
        let mut gradients = gradients.into_iter();
        match &mut self.form {
            Form::Whole(moments) => {
                let Some(gradient) = gradients.next() else { return };
                let change = moments.direction(gradient, count).mul_scalar(size.rate) * self.units.clone();
                self.value = size.decayed(self.value.clone()) - change;
            }
            Form::LowRank(change) => {
                for (factor, gradient) in [&mut change.up, &mut change.down].into_iter().zip(gradients) {
                    let step = factor.moments.direction(gradient, count).mul_scalar(size.rate);
                    factor.value = size.decayed(factor.value.clone()) - step;
                }
                self.value = change.value(&self.units);
            }
        }
    }

    /// Everything that the training goes on from, by name.
    pub fn state(&self) -> Vec<(String, Tensor<2>)> {
        let named = |part: &str, tensor: &Tensor<2>| (format!("{}.{part}", self.key), tensor.clone());
        match &self.form {
            Form::Whole(moments) => vec![
                named("value", &self.value),
                named("first", &moments.first),
                named("second", &moments.second),
            ],
            Form::LowRank(change) => [("up", &change.up), ("down", &change.down)]
                .into_iter()
                .flat_map(|(name, factor)| {
                    [
                        named(&format!("{name}.value"), &factor.value),
                        named(&format!("{name}.first"), &factor.moments.first),
                        named(&format!("{name}.second"), &factor.moments.second),
                    ]
                })
                .collect(),
        }
    }

    /// Takes back what [`Self::state`] gave, by the same names and shapes.
    pub fn restore<E>(&mut self, read: &mut ReadTensor<'_, E>) -> Result<(), E> {
        let key = self.key.clone();
        let mut take = |part: String, slot: &mut Tensor<2>| {
            *slot = read(&format!("{key}.{part}"), slot.dims())?;
            Ok::<(), E>(())
        };
        match &mut self.form {
            Form::Whole(moments) => {
                take("value".into(), &mut self.value)?;
                take("first".into(), &mut moments.first)?;
                take("second".into(), &mut moments.second)?;
            }
            Form::LowRank(change) => {
                for (name, factor) in [("up", &mut change.up), ("down", &mut change.down)] {
                    take(format!("{name}.value"), &mut factor.value)?;
                    take(format!("{name}.first"), &mut factor.moments.first)?;
                    take(format!("{name}.second"), &mut factor.moments.second)?;
                }
                self.value = change.value(&self.units);
            }
        }
        Ok(())
    }

    /// Numbers of what moves.
    pub fn moving(&self) -> usize {
        let size = |tensor: &Tensor<2>| tensor.dims().iter().product::<usize>();
        match &self.form {
            Form::Whole(_) => size(&self.value),
            Form::LowRank(change) => size(&change.up.value) + size(&change.down.value),
        }
    }
}

/// The sum of the squares of a matrix.
pub(crate) fn squares(gradient: &Tensor<2>) -> Result<f64, CoreError> {
    let rows = host_values(gradient.clone().square().sum_dim(1))?;
    Ok(rows.into_iter().map(f64::from).sum())
}

/// Numbers of unit variance that depend on the seed alone.
fn random(shape: [usize; 2], seed: u64, device: &Device) -> Tensor<2> {
    let mut random = SplitMix::new(seed);
    // Uniform in ± sqrt(3).
    let mut next = || ((random.draw() >> 11) as f64 / (1u64 << 52) as f64 - 1.0) * 3f64.sqrt();
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| next() as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
