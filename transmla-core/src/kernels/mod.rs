//! Kernels: attention on any device, and fused forms of it for the CPU and for GPUs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `attention_parameters` | [`AttentionParameters`]: scale, soft-cap and window |
//! | `attention` | causal attention and its gradient; picks the form |
//! | `host` | both in blocks on the CPU: score matrices never leave the cache, keys of the future are not looked at |
//! | `decode` | attention of a few new tokens to many cached ones on the CPU, one pass over the cache |
//! | `plain_decode` | the same from tensor operations |
//! | `decode_tensors` | the same on any device; picks the form |
//! | `cube` | the same as one kernel for GPUs (features `cuda` and `wgpu`) |
//! | `skinny` | skinny matrix products on the CPU: a few rows times a weight that is read once, by all threads |
//! | `threads` | entering the threads of the CPU once for many small pieces of work |
//! | `prefetch` | asks for the memory that is read next |
//! | `storage` | numbers as caches keep them: `f32`, `bf16` or `f16` |
//! | `product`, `vectors`, `exponential` | matrix products, skinny products in registers, and a vectorised softmax |

mod attention;
mod attention_parameters;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cube;
mod decode;
mod decode_tensors;
mod exponential;
mod host;
mod plain_decode;
mod prefetch;
mod product;
mod skinny;
mod storage;
mod threads;
mod vectors;

pub use attention::{
    AttentionGradients, attend, attention_gradients, causal_attention, plain_attend, plain_attention,
    plain_attention_gradients,
};
pub(crate) use attention::{on_host, repeat_heads};
pub use attention_parameters::AttentionParameters;
pub use decode::{CachedHead, DecodeShape, decode};
pub use decode_tensors::{CachedValues, decode_is_fused, decode_tensors};
pub use plain_decode::plain_decode;
pub(crate) use skinny::skinny_product;
pub use storage::{Stored, StoredSlice};
pub(crate) use threads::{among_threads, for_each_piece};
pub(crate) use vectors::{add_combinations, dot_products};
