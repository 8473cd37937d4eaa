//! Kernels: attention on any device, and fused forms of it for the CPU and for GPUs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `scoring` | [`Scoring`]: scale, bound and window of the scores |
//! | `attention` | causal attention and its gradient; picks the form |
//! | `host` | both in blocks on the CPU: score matrices never leave the cache, keys of the future are not looked at |
//! | `decode` | attention of a few new tokens to many cached ones on the CPU, one pass over the cache |
//! | `plain_decode` | the same from tensor operations |
//! | `decode_tensors` | the same on any device; picks the form |
//! | `cube` | the same as one kernel for GPUs (features `cuda` and `wgpu`) |
//! | `few_rows` | what weights make of a few rows on the CPU, each weight read once, by all threads |
//! | `threads` | entering the threads of the CPU once for many small pieces of work |
//! | `ahead` | memory that will be read next |
//! | `storage` | numbers as caches keep them: `f32`, `bf16` or `f16` |
//! | `product`, `vectors`, `exponential` | matrix products, products of a few rows, and a vectorised softmax |

mod ahead;
mod attention;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cube;
mod decode;
mod decode_tensors;
mod exponential;
mod few_rows;
mod host;
mod plain_decode;
mod product;
mod scoring;
mod storage;
mod threads;
mod vectors;

pub use attention::{
    AttentionGradients, attend, attention_gradients, causal_attention, plain_attend, plain_attention,
    plain_attention_gradients,
};
pub(crate) use attention::{on_host, repeat_heads};
pub use decode::{CachedHead, DecodeShape, decode};
pub use decode_tensors::{CachedValues, decode_is_fused, decode_tensors};
pub(crate) use few_rows::few_rows;
pub use plain_decode::plain_decode;
pub use scoring::Scoring;
pub use storage::{Stored, StoredSlice};
pub(crate) use threads::{among_threads, for_each_piece};
pub(crate) use vectors::{add_combinations, dot_products};
