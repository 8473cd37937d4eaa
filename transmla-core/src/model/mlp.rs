//! The gated MLP.

use burn::tensor::activation::{sigmoid, silu};
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
    pub(super) fn map<E>(self, each: &mut dyn FnMut(Linear) -> Result<Linear, E>) -> Result<Self, E> {
        Ok(Self {
            gate: each(self.gate)?,
            up: each(self.up)?,
            down: each(self.down)?,
            activation: self.activation,
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.activated(self.gate.forward(x.clone()));
        self.down.forward(gate * self.up.forward(x))
    }

    fn activated(&self, gate: Tensor<2>) -> Tensor<2> {
        match self.activation {
            Activation::Silu => silu(gate),
            Activation::GeluTanh => gelu_tanh(gate),
        }
    }

    /// The gradient of a loss with respect to an input `[rows, hidden]`, given that at its output. Nothing is recorded, and the
    /// output itself is not computed again.
    pub fn input_gradient(&self, x: Tensor<2>, output: Tensor<2>) -> Tensor<2> {
        let back = |linear: &Linear, gradient: Tensor<2>| gradient.matmul(linear.weight.clone());
        let inner = back(&self.down, output);
        let gate = self.gate.forward(x.clone());
        let by_up = inner.clone() * self.activated(gate.clone());
        let slope = match self.activation {
            Activation::Silu => silu_slope(gate),
            Activation::GeluTanh => gelu_tanh_slope(gate),
        };
        let by_gate = inner * self.up.forward(x) * slope;
        back(&self.up, by_up) + back(&self.gate, by_gate)
    }
}

/// `σ(x) (1 + x (1 - σ(x)))`.
fn silu_slope(x: Tensor<2>) -> Tensor<2> {
    let share = sigmoid(x.clone());
    let rest = share.clone().neg().add_scalar(1.0);
    share * (x * rest).add_scalar(1.0)
}

/// The derivative of [`gelu_tanh`].
fn gelu_tanh_slope(x: Tensor<2>) -> Tensor<2> {
    let square = x.clone().square();
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let inner = (x.clone() * square.clone().mul_scalar(0.044_715).add_scalar(1.0)).mul_scalar(root);
    let tanh = inner.tanh();
    let steepness = square.mul_scalar(3.0 * 0.044_715).add_scalar(1.0).mul_scalar(root);
    let of_tanh = tanh.clone().square().neg().add_scalar(1.0) * steepness;
    (tanh.add_scalar(1.0) + x * of_tanh).mul_scalar(0.5)
}

/// `x/2 · (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))` (Hendrycks and Gimpel, arXiv 1606.08415).
fn gelu_tanh(x: Tensor<2>) -> Tensor<2> {
    let cube = x.clone().powi_scalar(3).mul_scalar(0.044_715);
    let inner = (x.clone() + cube).mul_scalar((2.0 / std::f64::consts::PI).sqrt());
    x.mul_scalar(0.5) * inner.tanh().add_scalar(1.0)
}
