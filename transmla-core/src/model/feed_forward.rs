//! What a layer does with each token by itself: an MLP, or a mixture of experts.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::experts::Experts;
use super::linear::Linear;
use super::mlp::Mlp;
use crate::error::CoreError;

/// The feed-forward part of a layer.
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

    /// The same with each linear map replaced by the result of `each`.
    pub(super) fn map<E>(self, each: &mut dyn FnMut(Linear) -> Result<Linear, E>) -> Result<Self, E> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp.map(each)?),
            Self::Experts(experts) => Self::Experts(experts.map(each)?),
        })
    }

    /// The same as constants of an autodiff graph.
    pub(super) fn autodiff(self) -> Self {
        self.map_projections(&mut |_, tensor| tensor.autodiff())
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails while experts are chosen.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        match self {
            Self::Dense(mlp) => Ok(mlp.forward(x)),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}
