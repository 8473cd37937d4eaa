//! From the residual stream to logits.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::linear::{Linear, RmsNorm};
use super::residual_norm::residual_norm;
use crate::error::CoreError;

/// Final norm and output projection.
#[derive(Debug, Clone)]
pub struct OutputHead {
    pub(super) norm: RmsNorm,
    /// With what divides logits in it.
    pub(super) projection: Linear,
    pub(super) softcap: Option<f64>,
}

impl OutputHead {
    /// Reads the final norm, and the output projection or the embedding that it is tied to.
    ///
    /// # Errors
    /// A tensor is absent, has another shape than the configuration implies, or holds NaN.
    pub(super) fn read(checkpoint: &Checkpoint, config: &ModelConfig, device: &Device) -> Result<Self, CoreError> {
        let name = match config.tie_word_embeddings {
            true => "model.embed_tokens",
            false => "lm_head",
        };
        let shape = [config.vocab_size, config.hidden_size];
        Ok(Self {
            norm: residual_norm(checkpoint, "model.norm", config, device)?,
            projection: Linear::read(checkpoint, name, shape, device)?.times(config.logit_divisor.recip()),
            softcap: config.logit_softcap,
        })
    }

    /// Residual stream `[rows, hidden]` to logits `[rows, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        let logits = self.projection.forward(self.norm.forward(hidden));
        match self.softcap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        }
    }

    /// The same with norm and projection replaced by the results of the functions.
    pub(super) fn map(
        self,
        norm: impl FnOnce(RmsNorm) -> Result<RmsNorm, CoreError>,
        projection: impl FnOnce(Linear) -> Result<Linear, CoreError>,
    ) -> Result<Self, CoreError> {
        Ok(Self {
            norm: norm(self.norm)?,
            projection: projection(self.projection)?,
            ..self
        })
    }
}
