//! What a layer does with each token by itself: an MLP, or a mixture of experts.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use transmla_checkpoint::layout::{MlpNames, layer_prefix};
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::experts::Experts;
use super::linear::Linear;
use super::mlp::Mlp;
use super::number_format::NumberFormat;
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
        checkpoint: &Arc<Checkpoint>,
        index: usize,
        config: &Arc<ModelConfig>,
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

    /// The same with each linear map replaced by the result of `each`, all of them in memory.
    pub(super) fn map(self, each: &mut dyn FnMut(Linear) -> Result<Linear, CoreError>) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp.map(each)?),
            Self::Experts(experts) => Self::Experts(experts.map(each)?),
        })
    }

    /// The same with all weights in memory.
    pub(super) fn whole(self) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp),
            Self::Experts(experts) => Self::Experts(experts.whole()?),
        })
    }

    /// The same as an engine loads it, in another number format.
    pub(super) fn rounded(self, format: NumberFormat) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp.map(&mut |linear| format.linear(linear))?),
            Self::Experts(experts) => Self::Experts(experts.rounded(format)?),
        })
    }

    /// The same as constants of an autodiff graph, all of them in memory.
    pub(super) fn autodiff(self) -> Result<Self, CoreError> {
        self.map(&mut |linear| Ok(linear.autodiff()))
    }

    /// The same with tensors that no autodiff graph knows.
    pub(super) fn without_autodiff(self) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Dense(mlp) => Self::Dense(mlp.map(&mut |linear| Ok(linear.without_autodiff()))?),
            Self::Experts(experts) => Self::Experts(experts.without_autodiff()?),
        })
    }

    /// The gradient with respect to an input `[rows, hidden]`, given that at the output; nothing is recorded.
    pub(super) fn input_gradient(&self, x: Tensor<2>, output: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        match self {
            Self::Dense(mlp) => Ok(mlp.input_gradient(x, output)),
            Self::Experts(experts) => experts.input_gradient(x, output),
        }
    }

    /// `[rows, hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// An expert cannot be read; [`CoreError::Execution`] if the device fails while experts are chosen.
    pub fn forward(&self, x: Tensor<2>) -> Result<Tensor<2>, CoreError> {
        match self {
            Self::Dense(mlp) => Ok(mlp.forward(x)),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}
