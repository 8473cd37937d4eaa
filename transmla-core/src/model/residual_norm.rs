//! The norms of the residual stream and of heads, by family.

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
    family_norm(checkpoint, prefix, config.hidden_size, config, device)
}

/// Reads a norm of a width, by what the family's norms multiply by.
pub(super) fn family_norm(
    checkpoint: &Checkpoint,
    prefix: &str,
    width: usize,
    config: &ModelConfig,
    device: &Device,
) -> Result<RmsNorm, CoreError> {
    let norm = RmsNorm::read(checkpoint, prefix, width, config.rms_norm_eps, device)?;
    Ok(match config.family.norm_weight {
        NormWeight::Plain => norm,
        NormWeight::OnePlus => norm.one_plus(),
    })
}
