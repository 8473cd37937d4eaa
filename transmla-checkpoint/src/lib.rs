//! Checkpoints, configurations, token files and hub access for grouped-query and multi-head latent attention models.
//!
//! Nothing here needs a tensor library: weights are read as `Vec<f32>`, one tensor at a time, and written the same way.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`checkpoint`] | safetensors folders in hub layout and GGUF files: reading one tensor at a time; writing shard by shard; token files |
//! | [`config`] | `config.json` of every supported family, and of latent attention models |
//! | [`layout`] | the tensors that a configuration implies, and whether a checkpoint has them |
//! | [`hub`] | folders and hub ids; downloads with the feature `hub` |
//! | [`synthetic`] | random weights in the shape of any supported model |
//!
//! # Example
//!
//! Opens a model folder, checks it, and reads one tensor:
//!
//! ```
//! use std::path::Path;
//!
//! use transmla_checkpoint::layout::check_headers;
//! use transmla_checkpoint::{Checkpoint, ModelConfig};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models/stories260k"));
//! let config = ModelConfig::read(folder)?;
//! let checkpoint = Checkpoint::open(folder)?;
//! check_headers(&config, &checkpoint)?;
//! let norm = checkpoint.values("model.norm.weight", &[config.hidden_size])?;
//! assert_eq!(norm.len(), 64);
//! # Ok::<(), transmla_checkpoint::CheckpointError>(())
//! ```

#![warn(missing_docs)]

pub mod checkpoint;
pub mod config;
mod error;
mod gguf;
pub mod hub;
pub mod layout;
mod pickle;
mod quantized;
mod repository;
pub mod synthetic;
mod tokens;

pub use checkpoint::{Checkpoint, CheckpointWriter, StorageDtype, TensorDtype, TensorSpec};
pub use config::{
    AttentionConfig, AttentionParameters, GroupedConfig, LatentConfig, ModelConfig, RawConfig, RopeLayout,
};
pub use error::CheckpointError;
pub use quantized::GgufDtype;
pub use tokens::TokenBatch;
