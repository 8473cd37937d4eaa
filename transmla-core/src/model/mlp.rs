//! The gated MLP.

use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use transmla_checkpoint::config::Activation;
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::linear::Linear;
use crate::error::CoreError;

/// `down(act(gate(x)) * up(x))` (Shazeer, arXiv 2002.05202: SwiGLU, GEGLU).
#[derive(Debug, Clone)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        names: MlpNames,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        Ok(Self {
            gate: read(names.gate, [inner, hidden])?,
            up: read(names.up, [inner, hidden])?,
            down: read(names.down, [hidden, inner])?,
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
        let gate = match self.activation {
            Activation::Silu => silu(gate),
            Activation::GeluTanh => gelu_tanh(gate),
        };
        self.down.forward(gate * self.up.forward(x))
    }
}

/// `x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel, arXiv 1606.08415).
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let cube = x.clone().powi_scalar(3).mul_scalar(0.044_715);
    let inner = (x.clone() + cube).mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}
