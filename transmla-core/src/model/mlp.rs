//! The gated MLP.

use burn::tensor::{Device, Tensor, activation::silu};

use super::linear::Linear;
use crate::{Checkpoint, CoreError, ModelConfig};

/// `down(silu(gate(x)) * up(x))` (Shazeer, arXiv 2002.05202, SwiGLU).
#[derive(Debug, Clone)]
pub struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Mlp {
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let read = |name: &str, shape| Linear::read(checkpoint, &format!("{prefix}.{name}"), shape, device);
        Ok(Self {
            gate: read("gate_proj", [inner, hidden])?,
            up: read("up_proj", [inner, hidden])?,
            down: read("down_proj", [hidden, inner])?,
        })
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down
            .forward(silu(self.gate.forward(x.clone())) * self.up.forward(x))
    }
}
