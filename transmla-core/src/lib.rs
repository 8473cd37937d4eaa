//! Decoders of grouped-query and multi-head latent attention models, their KV caches, attention kernels and generation.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`model`] | the decoder, its layers, the kinds of attention and their caches |
//! | [`generate`] | text token by token: greedy, or sampled by temperature and top-p |
//! | [`kernels`] | attention and its gradient, fused on the CPU; decoding from a cache |
//! | [`device`] | picking a backend at run time |
//! | [`checkpoint`], [`config`], [`hub`], [`synthetic`] | those of `transmla-checkpoint`: files without tensors |
//!
//! Everything that consumes a model works on [`LayeredModel`]: embeddings in, one layer at a time, logits out. `burn` is
//! re-exported, so that its version need not be named.
//!
//! # Example
//!
//! Eight tokens of a real model, with a cache:
//!
//! ```
//! use std::path::Path;
//!
//! use transmla_core::burn::tensor::Device;
//! use transmla_core::generate::{Generation, Sampler};
//! use transmla_core::{Decoder, KvCache, LayeredModel, Residency};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models/stories260k"));
//! let model = Decoder::open(folder, &Device::flex(), Residency::Loaded)?;
//! let mut cache = KvCache::new(model.config(), 64);
//! let generation = Generation { max_new_tokens: 8, stop_ids: &[2] };
//! let prompt = [1, 403, 407, 261, 378]; // "Once upon a time"
//! let mut ids = Vec::new();
//! generation.run(&model, &mut cache, &prompt, &mut Sampler::greedy(), &mut |id| {
//!     ids.push(id);
//!     Ok::<(), transmla_core::CoreError>(())
//! })?;
//! assert_eq!(ids.len(), 8);
//! // 5 layers of 2 x 4 heads x 8 numbers of 4 bytes for each of the 12 tokens seen.
//! assert_eq!(cache.bytes(), 5 * 64 * 4 * 12);
//! # Ok::<(), transmla_core::CoreError>(())
//! ```

#![warn(missing_docs)]

pub mod device;
mod error;
pub mod generate;
mod host;
pub mod kernels;
pub mod model;
mod read_tensor;

pub use burn;
pub use device::DeviceChoice;
pub use error::CoreError;
pub use host::host_values;
pub use kernels::{CacheFormat, Quantisation};
pub use model::{Decoder, DecoderLayer, KvCache, LayeredModel, Residency};
pub use read_tensor::ReadTensor;
pub use transmla_checkpoint::{
    AttentionConfig, Checkpoint, CheckpointError, CheckpointWriter, GgufDtype, GroupedConfig, LatentConfig,
    ModelConfig, RawConfig, RopeLayout, StorageDtype, TensorDtype, TensorSpec, TokenBatch,
};
pub use transmla_checkpoint::{checkpoint, config, hub, layout, synthetic};
