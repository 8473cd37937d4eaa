//! Checkpoints, configurations, decoders and KV caches of grouped-query and multi-head latent attention models.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`checkpoint`] | safetensors folders in hub layout: reading one tensor at a time, writing shard by shard |
//! | [`config`] | `config.json` of every supported family, and of latent attention models |
//! | [`model`] | the decoder, its layers, both kinds of attention and their caches |
//! | [`kernels`] | attention and its gradient, fused on the CPU |
//! | [`device`] | picking a backend at run time |
//! | [`synthetic`] | random weights in the shape of any supported model |
//! | [`hub`] | folders and hub ids (feature `hub`) |
//!
//! Everything that consumes a model works on [`LayeredModel`]: embeddings in, one layer at a time, logits out.
//!
//! Greedy decoding of a real model, with a cache:
//!
//! ```
//! use std::path::Path;
//!
//! use burn::tensor::Device;
//! use transmla_core::{Decoder, KvCache, LayeredModel, Residency, TokenBatch, host_values};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models/stories260k"));
//! let model = Decoder::open(folder, &Device::flex(), Residency::Loaded)?;
//! let mut cache = KvCache::new(model.config(), 64);
//! let mut ids = vec![1, 403, 407, 261, 378]; // "Once upon a time"
//! for _ in 0..8 {
//!     let new = ids[cache.tokens()..].to_vec();
//!     let length = new.len();
//!     let logits = model.next_logits(&TokenBatch::from_ids(new, 1, length)?, Some(&mut cache))?;
//!     let logits = host_values(logits)?;
//!     let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
//!     ids.extend(best.map(|id| id as i64));
//! }
//! assert_eq!(ids.len(), 13);
//! // 5 layers of 2 x 4 heads x 8 numbers of 4 bytes for each of the 12 tokens seen.
//! assert_eq!(cache.bytes(), 5 * 64 * 4 * 12);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

pub mod checkpoint;
pub mod config;
pub mod device;
mod error;
mod host;
pub mod hub;
pub mod kernels;
pub mod model;
pub mod synthetic;

pub use checkpoint::{Checkpoint, CheckpointWriter, StorageDtype, TensorSpec};
pub use config::{AttentionConfig, GroupedConfig, LatentConfig, ModelConfig, RopeLayout};
pub use device::DeviceChoice;
pub use error::CoreError;
pub(crate) use host::HostNumbers;
pub use host::host_values;
pub use model::{Decoder, DecoderLayer, KvCache, LayeredModel, Residency, TokenBatch};
