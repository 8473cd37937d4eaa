//! Where the experts of a layer are: in memory, or in their checkpoint until tokens go to them.

use std::sync::Arc;

use burn::tensor::Device;
use transmla_checkpoint::layout::MlpNames;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use super::mlp::Mlp;
use super::number_format::NumberFormat;
use crate::error::CoreError;

/// The experts of a layer.
#[derive(Debug, Clone)]
pub(super) enum ExpertPlace {
    /// All in memory.
    Held(Vec<Mlp>),
    /// Each is read when it is needed.
    Stored(StoredExperts),
}

/// Experts in a checkpoint.
#[derive(Debug, Clone)]
pub(super) struct StoredExperts {
    pub checkpoint: Arc<Checkpoint>,
    pub config: Arc<ModelConfig>,
    /// In front of an expert's number.
    pub prefix: String,
    pub names: MlpNames,
    pub width: usize,
    /// The number format that they are rounded to.
    pub format: Option<NumberFormat>,
}

impl ExpertPlace {
    /// One of them on a device, which those in memory are on already.
    pub fn expert(&self, index: usize, device: &Device) -> Result<Mlp, CoreError> {
        match self {
            Self::Stored(stored) => stored.read(index, device),
            Self::Held(experts) => Ok(experts[index].clone()),
        }
    }

    /// The same in another number format.
    pub fn rounded(self, format: NumberFormat) -> Result<Self, CoreError> {
        Ok(match self {
            Self::Held(experts) => {
                let round = |expert: Mlp| expert.map(&mut |linear| format.linear(linear));
                Self::Held(experts.into_iter().map(round).collect::<Result<_, CoreError>>()?)
            }
            Self::Stored(stored) => Self::Stored(StoredExperts {
                format: Some(format),
                ..stored
            }),
        })
    }
}

impl StoredExperts {
    fn read(&self, index: usize, device: &Device) -> Result<Mlp, CoreError> {
        let prefix = format!("{}.{index}", self.prefix);
        let mlp = Mlp::read(&self.checkpoint, &prefix, self.names, self.width, &self.config, device)?;
        match self.format {
            Some(format) => mlp.map(&mut |linear| format.linear(linear)),
            None => Ok(mlp),
        }
    }
}
