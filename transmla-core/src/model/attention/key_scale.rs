//! The scale of a norm on keys, of which a latent attention has the rest.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::config::LatentConfig;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::heads::split_heads;
use crate::error::CoreError;
use crate::kernels::repeat_heads;
use crate::model::linear::Linear;
use crate::read_tensor::ReadTensor;

/// What a token's normalised keys are to linear ones: a factor for each key head, or one for all.
///
/// An RMSNorm is a weight, which is linear, and one over the root mean square of its input, a number. That number multiplies
/// every score of the token in that head, in whatever form the keys are, so a latent can hold the linear rest.
#[derive(Debug, Clone)]
pub struct KeyScale {
    /// `k_proj`, `[G·d, hidden]`: the keys whose size counts.
    pub k: Linear,
    /// `k_norm`, `[G]`, or `[1]` where a norm spans all heads: what the linear keys of each scale were divided by.
    pub gain: Tensor<1>,
    /// Added to the mean square.
    pub eps: f64,
}

impl KeyScale {
    pub(super) fn read(
        checkpoint: &Checkpoint,
        prefix: &str,
        config: &ModelConfig,
        latent: &LatentConfig,
        device: &Device,
    ) -> Result<Option<Self>, CoreError> {
        let (Some(scales), Some(rows)) = (latent.key_norm_heads, latent.key_norm_rows()) else {
            return Ok(None);
        };
        let shape = [rows, config.hidden_size];
        Ok(Some(Self {
            k: Linear::read(checkpoint, &format!("{prefix}.k_proj"), shape, device)?,
            gain: checkpoint.vector(&format!("{prefix}.k_norm.weight"), scales, device)?,
            eps: config.rms_norm_eps,
        }))
    }

    /// From inputs `[batch·seq, hidden]`: what is cached of each token, `[batch, 1, seq, scales]`.
    pub(super) fn forward(&self, x: Tensor<2>, batch: usize) -> Tensor<4> {
        let count = self.gain.dims()[0];
        let keys = self.k.forward(x);
        let [rows, width] = keys.dims();
        let keys = keys.reshape([rows, count, width / count]);
        let root = keys.square().mean_dim(2).add_scalar(self.eps).sqrt(); // [batch·seq, scales, 1]
        let scales = root.recip().reshape([rows, count]) * self.gain.clone().unsqueeze();
        split_heads(scales, batch, 1)
    }

    /// The same as a constant of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            k: self.k.autodiff(),
            gain: self.gain.autodiff(),
            ..self
        }
    }
}

/// Keys `[batch, heads, seq, width]` times the cached scales of their tokens, `[batch, 1, seq, scales]`, whose number divides the heads.
pub(super) fn scaled(keys: Tensor<4>, scales: Option<Tensor<4>>) -> Tensor<4> {
    let heads = keys.dims()[1];
    match scales {
        None => keys,
        Some(scales) => keys * repeat_heads(scales.swap_dims(1, 3), heads),
    }
}
