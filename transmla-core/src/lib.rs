//! Checkpoints, configurations, decoders and KV caches of grouped-query and multi-head latent attention models.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`checkpoint`] | safetensors folders in hub layout: reading one tensor at a time, writing shard by shard |
//! | [`config`] | `config.json` of every supported family, and of latent attention models |
//! | [`model`] | the decoder, its layers, both kinds of attention and their caches |
//! | [`kernels`] | attention and its gradient, fused on the CPU |
//! | [`device`] | picking a backend at run time |
//! | [`hub`] | folders and hub ids (feature `hub`) |
//!
//! Everything that consumes a model works on [`LayeredModel`]: embeddings in, one layer at a time, logits out.

#![warn(missing_docs)]

pub mod checkpoint;
pub mod config;
pub mod device;
mod error;
mod host;
pub mod hub;
pub mod kernels;
pub mod model;

pub use checkpoint::{Checkpoint, CheckpointWriter, StorageDtype, TensorSpec};
pub use config::{AttentionConfig, GroupedConfig, LatentConfig, ModelConfig, RopeLayout};
pub use device::DeviceChoice;
pub use error::CoreError;
pub use host::host_values;
pub use model::{Decoder, DecoderLayer, KvCache, LayeredModel, Residency, TokenBatch};
