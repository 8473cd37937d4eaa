//! The norms of the residual stream, by family.

use burn::tensor::Device;
use transmla_checkpoint::config::NormWeight;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::linear::RmsNorm;
use crate::error::CoreError;

/// Reads a norm of the residual stream.
pub(super) fn residual_norm(
    checkpoint: &Checkpoint,
    prefix: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<RmsNorm, CoreError> {
    let norm = RmsNorm::read(checkpoint, prefix, config.hidden_size, config.rms_norm_eps, device)?;
    Ok(match config.family.norm_weight {
        NormWeight::Plain => norm,
        NormWeight::OnePlus => norm.one_plus(),
    })
}
