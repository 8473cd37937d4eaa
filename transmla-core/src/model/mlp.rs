//! The gated MLP, and what may stand in its place.

use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::experts::Experts;
use super::linear::Linear;
use crate::config::Activation;
use crate::{Checkpoint, CoreError, ModelConfig};

/// What a layer does with each token by itself.
#[expect(
    clippy::large_enum_variant,
    reason = "a model has a few dozen; they hold handles of its weights"
)]
#[derive(Debug, Clone)]
pub enum FeedForwardLayer {
    /// One MLP.
    Dense(Mlp),
    /// A mixture of experts.
    Experts(Experts),
}

impl FeedForwardLayer {
    /// Reads whichever the configuration says, of the layer at `prefix`.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        match &config.experts {
            None => {
                let prefix = format!("{prefix}.mlp");
                Ok(Self::Dense(Mlp::read(
                    checkpoint,
                    &prefix,
                    MlpNames::DENSE,
                    config,
                    device,
                )?))
            }
            Some(experts) => {
                let prefix = format!("{prefix}.block_sparse_moe");
                Ok(Self::Experts(Experts::read(
                    checkpoint, &prefix, config, experts, device,
                )?))
            }
        }
    }

    /// The same with every map made anew of its own.
    pub(super) fn map(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp.map(each)?),
            Self::Experts(experts) => Self::Experts(experts.map(each)?),
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}

/// Names of an MLP's three matrices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MlpNames {
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

impl MlpNames {
    pub const DENSE: Self = Self {
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    };
    pub const EXPERT: Self = Self {
        gate: "w1",
        up: "w3",
        down: "w2",
    };
}

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

    /// The same with every map made anew of its own.
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
