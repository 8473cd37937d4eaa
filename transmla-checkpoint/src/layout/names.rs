//! Names of layers and of an MLP's matrices in Hugging Face checkpoints.

/// `model.layers.{index}`.
pub fn layer_prefix(index: usize) -> String {
    format!("model.layers.{index}")
}

/// Names of an MLP's three matrices.
#[derive(Debug, Clone, Copy)]
pub struct MlpNames {
    /// Of the matrix whose outputs go through the activation.
    pub gate: &'static str,
    /// Of the matrix whose outputs are multiplied by those.
    pub up: &'static str,
    /// Of the matrix back to the residual stream.
    pub down: &'static str,
}

impl MlpNames {
    /// Of a dense MLP.
    pub const DENSE: Self = Self {
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    };
    /// Of one expert.
    pub const EXPERT: Self = Self {
        gate: "w1",
        up: "w3",
        down: "w2",
    };
}
