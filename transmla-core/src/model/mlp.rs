//! The gated MLP.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::config::Activation;
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::linear::Linear;
use crate::error::CoreError;
use crate::kernels::{GatedGradients, gated, gated_gradients};

/// `down(act(gate(x)) * up(x))` (Shazeer, arXiv 2002.05202: SwiGLU, GEGLU).
#[derive(Debug, Clone)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    /// Reads the three matrices of an MLP that is `inner` wide.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        names: MlpNames,
        inner: usize,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let hidden = config.hidden_size;
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        Ok(Self {
            gate: read(names.gate, [inner, hidden])?,
            up: read(names.up, [inner, hidden])?,
            down: read(names.down, [hidden, inner])?.times(config.residual_multiplier),
            activation: config.activation,
        })
    }

    /// The same with each linear map replaced by the result of `each`.
    pub(super) fn map(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        Ok(Self {
            gate: each(self.gate)?,
            up: each(self.up)?,
            down: each(self.down)?,
            activation: self.activation,
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate.forward(x.clone());
        self.down.forward(gated(self.activation, gate, self.up.forward(x)))
    }

    /// The gradient of a loss with respect to an input `[rows, hidden]`, given that at its output. Nothing is recorded, and the
    /// output itself is not computed again.
    pub fn input_gradient(&self, x: Tensor<2>, output: Tensor<2>) -> Tensor<2> {
        let inner = self.down.input_gradient(output);
        let gradients = gated_gradients(self.activation, self.gate.forward(x.clone()), self.up.forward(x), inner);
        self.up.input_gradient(gradients.up) + self.gate.input_gradient(gradients.gate)
    }

    /// The same, and the gradients of the three maps' weights and biases in the order in which [`Self::map`] goes over them, a bias
    /// as a matrix of one column.
    pub(super) fn gradients(&self, x: Tensor<2>, output: Tensor<2>) -> (Tensor<2>, Vec<Tensor<2>>) {
        let inner = self.down.input_gradient(output.clone());
        let (gate, up) = (self.gate.forward(x.clone()), self.up.forward(x.clone()));
        let GatedGradients { product, gate, up } = gated_gradients(self.activation, gate, up, inner);
        let of_input = self.up.input_gradient(up.clone()) + self.gate.input_gradient(gate.clone());
        let of_maps = [
            (&self.gate, x.clone(), gate),
            (&self.up, x, up),
            (&self.down, product, output),
        ];
        let of_maps = of_maps.map(|(map, input, output)| map.own_gradients(input, output));
        (of_input, of_maps.into_iter().flatten().collect())
    }
}
