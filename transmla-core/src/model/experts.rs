//! A mixture of experts in the place of the MLP.

use std::sync::Arc;

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use transmla_checkpoint::config::{ExpertConfig, ExpertRule};
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::expert_place::{ExpertPlace, StoredExperts};
use super::linear::Linear;
use super::mlp::Mlp;
use super::number_format::NumberFormat;
use crate::error::CoreError;
use crate::host::host_values;

/// A sparse mixture of experts: each token is routed to a few of them (Mixtral, arXiv 2401.04088, section 2.1), and through
/// one that all tokens share if there is one (Qwen2, arXiv 2407.10671, section 2.2.2).
///
/// As it is read from a checkpoint it has its router and the shared expert; each of the others is read when tokens go to it, and
/// dropped behind them. [`Self::whole`] has them all.
#[derive(Debug, Clone)]
pub struct Experts {
    pub(super) rule: ExpertRule,
    pub(super) count: usize,
    pub(super) gate: Linear,
    pub(super) place: ExpertPlace,
    pub(super) shared: Option<SharedExpert>,
    per_token: usize,
    pub(super) normalised: bool,
}

/// The expert that every token goes through, and the map whose sigmoid is its share.
#[derive(Debug, Clone)]
pub(super) struct SharedExpert {
    pub(super) gate: Linear,
    pub(super) mlp: Mlp,
}

/// Where the tokens of a batch go.
pub(super) struct Routes {
    /// Share of each expert, of the chosen alone, `[rows, experts]`.
    pub(super) shares: Tensor<2>,
    /// Rows that go to each expert.
    rows: Vec<Vec<i64>>,
}

impl Routes {
    /// Rows that go to an expert, if any does.
    pub(super) fn to(&self, expert: usize) -> Option<Tensor<1, Int>> {
        let rows = self.rows[expert].clone();
        let length = rows.len();
        (length > 0).then(|| Tensor::from_data(TensorData::new(rows, [length]), &self.shares.device()))
    }
}

impl Experts {
    /// Reads the experts of the layer at `prefix`.
    pub(crate) fn read(
        checkpoint: &Arc<Checkpoint>,
        prefix: &str,
        config: &Arc<ModelConfig>,
        experts: &ExpertConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let (rule, hidden) = (experts.rule, config.hidden_size);
        let prefix = format!("{prefix}.{}", rule.module);
        let gate = |name: &str, rows| Linear::read(checkpoint, &format!("{prefix}.{name}"), [rows, hidden], device);
        let mlp =
            |name: &str, names, inner| Mlp::read(checkpoint, &format!("{prefix}.{name}"), names, inner, config, device);
        let shared = |width| {
            Ok::<_, CoreError>(SharedExpert {
                gate: gate("shared_expert_gate", 1)?,
                mlp: mlp("shared_expert", MlpNames::DENSE, width)?,
            })
        };
        Ok(Self {
            rule,
            count: experts.count,
            gate: gate("gate", experts.count)?,
            place: ExpertPlace::Stored(StoredExperts {
                checkpoint: checkpoint.clone(),
                config: config.clone(),
                prefix: format!("{prefix}.experts"),
                names: rule.names,
                width: experts.width,
                format: None,
            }),
            shared: experts.shared_width.map(shared).transpose()?,
            per_token: experts.per_token,
            normalised: experts.normalised,
        })
    }

    /// One of the experts, read if it is not in memory.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn expert(&self, index: usize) -> Result<Mlp, CoreError> {
        self.place.expert(index, &self.gate.weight.device())
    }

    /// The same with all experts in memory.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn whole(self) -> Result<Self, CoreError> {
        let experts = (0..self.count)
            .map(|index| self.expert(index))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            place: ExpertPlace::Held(experts),
            ..self
        })
    }

    /// The same as an engine loads it, in another number format; experts are still read when they are needed.
    pub(super) fn rounded(mut self, format: NumberFormat) -> Result<Self, CoreError> {
        self.place = self.place.rounded(format)?;
        self.with_others(&mut |linear| format.linear(linear))
    }

    /// The same with each linear map replaced by the result of `each`, the experts' in memory.
    pub(super) fn map(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        let gate = each(self.gate.clone())?;
        let mut experts = Vec::with_capacity(self.count);
        for index in 0..self.count {
            experts.push(self.expert(index)?.map(each)?);
        }
        let shared = self.shared.map(|shared| shared.map(each)).transpose()?;
        Ok(Self {
            gate,
            place: ExpertPlace::Held(experts),
            shared,
            ..self
        })
    }

    /// The same with the router and what all tokens share replaced.
    fn with_others(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        Ok(Self {
            gate: each(self.gate)?,
            shared: self.shared.map(|shared| shared.map(each)).transpose()?,
            ..self
        })
    }

    /// The same with tensors that no autodiff graph knows.
    pub(super) fn without_autodiff(self) -> Result<Self, CoreError> {
        let mut plain = |linear: Linear| Ok(linear.without_autodiff());
        match self.place {
            ExpertPlace::Held(_) => self.map(&mut plain),
            ExpertPlace::Stored(_) => self.with_others(&mut plain),
        }
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// An expert cannot be read; [`CoreError::Execution`] if the device fails while experts are chosen.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        let mut fed = self.forward_each(std::slice::from_ref(&x), &|x| x, &mut |_| ())?;
        Ok(fed.pop().unwrap_or_else(|| x.zeros_like()))
    }

    /// As [`Self::forward`] for what `input` makes of the rows of each state, `[rows, hidden]`. All tokens that go to an expert
    /// are computed while it is in memory; `done` hears how many experts are.
    pub(super) fn forward_each(
        &self,
        states: &[Tensor<2>],
        input: &dyn Fn(Tensor<2>) -> Tensor<2>,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor<2>>, CoreError> {
        let mut routes = Vec::with_capacity(states.len());
        let mut outputs = Vec::with_capacity(states.len());
        for state in states {
            let x = input(state.clone());
            routes.push(self.routes(x.clone())?);
            outputs.push(match &self.shared {
                Some(shared) => shared.mlp.forward(x.clone()) * sigmoid(shared.gate.forward(x)),
                None => x.zeros_like(),
            });
        }
        for index in 0..self.count {
            let mut expert = None;
            for ((state, routes), output) in states.iter().zip(&routes).zip(&mut outputs) {
                let Some(rows) = routes.to(index) else {
                    continue;
                };
                let expert = match &mut expert {
                    Some(expert) => expert,
                    none => none.insert(self.expert(index)?),
                };
                let share = routes.shares.clone().narrow(1, index, 1).select(0, rows.clone());
                let fed = expert.forward(input(state.clone().select(0, rows.clone()))) * share;
                // Given away, so that it is added to in place.
                let sum = std::mem::replace(output, Tensor::empty([1, 1], &state.device()));
                *output = sum.select_assign(0, rows, fed, IndexingUpdateOp::Add);
            }
            done(index + 1);
        }
        Ok(outputs)
    }

    /// Where each row of `[rows, hidden]` goes.
    pub(super) fn routes(&self, x: Tensor<2>) -> Result<Routes, CoreError> {
        let shares = softmax(self.gate.forward(x), 1);
        let [rows, count] = shares.dims();
        let values = host_values(shares.clone().detach())?;
        let mut chosen = vec![0.0f32; values.len()];
        let mut to: Vec<Vec<i64>> = vec![Vec::new(); count];
        for (row, shares) in values.chunks_exact(count).enumerate() {
            for expert in best(shares, self.per_token) {
                chosen[row * count + expert] = 1.0;
                to[expert].push(row as i64);
            }
        }
        let device = shares.device();
        let shares = shares * Tensor::from_data(TensorData::new(chosen, [rows, count]), &device);
        Ok(Routes {
            shares: match self.normalised {
                true => shares.clone() / shares.sum_dim(1),
                false => shares,
            },
            rows: to,
        })
    }
}

impl SharedExpert {
    fn map(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        Ok(Self {
            gate: each(self.gate)?,
            mlp: self.mlp.map(each)?,
        })
    }
}

/// Indices of the `count` largest shares, the first of equal ones.
fn best(shares: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| shares[*b].total_cmp(&shares[*a]));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_is_chosen() {
        assert_eq!(best(&[0.1, 0.4, 0.1, 0.4], 3), [1, 3, 0]);
    }
}
