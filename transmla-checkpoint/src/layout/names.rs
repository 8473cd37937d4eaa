//! Names of layers in Hugging Face checkpoints.

/// `model.layers.{index}`.
pub fn layer_prefix(index: usize) -> String {
    format!("model.layers.{index}")
}
