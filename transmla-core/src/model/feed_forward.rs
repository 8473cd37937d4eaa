//! What a layer does with each token by itself: an MLP, or a mixture of experts.

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::layout::{MlpNames, layer_prefix};
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
    /// Reads whichever the configuration says that this layer has.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        index: usize,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<Self, CoreError> {
        let prefix = layer_prefix(index);
        match config.experts_of(index) {
            None => {
                let (prefix, inner) = (format!("{prefix}.mlp"), config.intermediate_size);
                let mlp = Mlp::read(checkpoint, &prefix, MlpNames::DENSE, inner, config, device)?;
                Ok(Self::Dense(mlp))
            }
            Some(experts) => Ok(Self::Experts(Experts::read(
                checkpoint, &prefix, config, experts, device,
            )?)),
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
