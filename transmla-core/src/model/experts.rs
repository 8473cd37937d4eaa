//! A mixture of experts in the place of the MLP.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use transmla_checkpoint::config::{ExpertConfig, ExpertRule};
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::linear::Linear;
use super::mlp::Mlp;
use crate::error::CoreError;
use crate::host::host_values;

/// A sparse mixture of experts: each token is routed to a few of them (Mixtral, arXiv 2401.04088, section 2.1), and through
/// one that all tokens share if there is one (Qwen2, arXiv 2407.10671, section 2.2.2).
#[derive(Debug, Clone)]
pub struct Experts {
    pub(super) rule: ExpertRule,
    gate: Linear,
    pub(super) experts: Vec<Mlp>,
    pub(super) shared: Option<SharedExpert>,
    per_token: usize,
    normalised: bool,
}

/// The expert that every token goes through, and the map whose sigmoid is its share.
#[derive(Debug, Clone)]
pub(super) struct SharedExpert {
    gate: Linear,
    mlp: Mlp,
}

impl Experts {
    /// Reads the experts of the layer at `prefix`.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: &ModelConfig,
        experts: &ExpertConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let (rule, hidden) = (experts.rule, config.hidden_size);
        let prefix = format!("{prefix}.{}", rule.module);
        let gate = |name: &str, rows| Linear::read(checkpoint, &format!("{prefix}.{name}"), [rows, hidden], device);
        let mlp =
            |name: &str, names, inner| Mlp::read(checkpoint, &format!("{prefix}.{name}"), names, inner, config, device);
        let expert = |index| mlp(&format!("experts.{index}"), rule.names, experts.width);
        let shared = |width| {
            Ok::<_, CoreError>(SharedExpert {
                gate: gate("shared_expert_gate", 1)?,
                mlp: mlp("shared_expert", MlpNames::DENSE, width)?,
            })
        };
        Ok(Self {
            rule,
            gate: gate("gate", experts.count)?,
            experts: (0..experts.count).map(expert).collect::<Result<_, _>>()?,
            shared: experts.shared_width.map(shared).transpose()?,
            per_token: experts.per_token,
            normalised: experts.normalised,
        })
    }

    /// The same with each linear map replaced by the result of `each`.
    pub(super) fn map<E>(self, each: &mut dyn FnMut(Linear) -> Result<Linear, E>) -> Result<Self, E> {
        Ok(Self {
            gate: each(self.gate)?,
            experts: self
                .experts
                .into_iter()
                .map(|expert| expert.map(each))
                .collect::<Result<_, _>>()?,
            shared: match self.shared {
                Some(shared) => Some(SharedExpert {
                    gate: each(shared.gate)?,
                    mlp: shared.mlp.map(each)?,
                }),
                None => None,
            },
            ..self
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails while the experts are chosen.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        let shares = softmax(self.gate.forward(x.clone()), 1); // [rows, experts]
        let [rows, count] = shares.dims();
        let values = host_values(shares.clone().detach())?;
        let device = x.device();
        let mut chosen = vec![0.0f32; values.len()];
        let mut tokens: Vec<Vec<i64>> = vec![Vec::new(); count];
        for (row, shares) in values.chunks_exact(count).enumerate() {
            for expert in best(shares, self.per_token) {
                chosen[row * count + expert] = 1.0;
                tokens[expert].push(row as i64);
            }
        }
        let weights = shares * Tensor::from_data(TensorData::new(chosen, [rows, count]), &device);
        let weights = match self.normalised {
            true => weights.clone() / weights.sum_dim(1),
            false => weights,
        };
        let mut output = match &self.shared {
            Some(shared) => shared.mlp.forward(x.clone()) * sigmoid(shared.gate.forward(x.clone())),
            None => x.zeros_like(),
        };
        for (index, (expert, tokens)) in self.experts.iter().zip(tokens).enumerate() {
            if tokens.is_empty() {
                continue;
            }
            let length = tokens.len();
            let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [length]), &device);
            let weight = weights.clone().narrow(1, index, 1).select(0, tokens.clone());
            let fed = expert.forward(x.clone().select(0, tokens.clone())) * weight;
            output = output.select_assign(0, tokens, fed, IndexingUpdateOp::Add);
        }
        Ok(output)
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
