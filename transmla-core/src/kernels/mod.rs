//! Kernels: attention on any device, and fused forms of it for the CPU and for GPUs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `scores` | scale, soft-cap and mask of attention scores by [`AttentionParameters`] |
//! | `cached_values` | where the values of cached tokens are |
//! | `attention` | causal attention and its gradient; picks the form |
//! | `host` | both in blocks on the CPU: score matrices never leave the cache, keys of the future are not looked at |
//! | `loss` | divergence and cross-entropy of a row of logits, with the gradient in its place |
//! | `decode` | attention of a few new tokens to many cached ones on the CPU, one pass over the cache |
//! | `plain_decode` | the same from tensor operations |
//! | `decode_tensors` | the same on any device; picks the form |
//! | `cube` | the same as one kernel for GPUs (features `cuda` and `wgpu`) |
//! | `dense` | large matrix products on any device, on the CPU without the copies that burn makes |
//! | `gated` | the activation of a gated MLP and its gradient, on the CPU in one pass |
//! | `skinny` | skinny matrix products on the CPU: a few rows times a weight that is read once, by all threads |
//! | `threads` | entering the threads of the CPU once for many small pieces of work |
//! | `prefetch` | asks for the memory that is read next |
//! | `storage` | numbers as caches keep them: `f32`, `bf16`, `f16` or quantised rows |
//! | `cache_format` | the names of these formats, and the bytes of a token |
//! | `quantised`, `int4`, `small_floats` | rows of a latent cache with 8 or 4 bits to a number, and the floats in them |
//! | `product`, `vectors`, `exponential` | matrix products, skinny products in registers, and a vectorised softmax |

mod attention;
mod cache_format;
mod cached_values;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cube;
mod decode;
mod decode_tensors;
mod dense;
mod exponential;
mod gated;
mod host;
mod int4;
mod loss;
mod plain_decode;
mod prefetch;
mod product;
mod quantised;
mod scores;
mod skinny;
mod small_floats;
mod storage;
mod threads;
mod vectors;

pub use attention::{AttentionGradients, attend, attention_gradients, plain_attend, plain_attention_gradients};
pub(crate) use attention::{on_host, repeat_heads};
pub use cache_format::CacheFormat;
pub use cached_values::CachedValues;
pub use decode::{CachedHead, DecodeShape, decode};
pub use decode_tensors::{decode_is_fused, decode_tensors};
pub use dense::matrix_product;
pub(crate) use gated::{GatedGradients, gated, gated_gradients};
pub(crate) use loss::{RowLoss, RowTeacher, row_loss, top_of_row};
pub use plain_decode::plain_decode;
pub use quantised::{Quantisation, QuantisedRow};
pub use scores::attention_mask;
pub(crate) use skinny::skinny_product;
pub use storage::{Stored, StoredSlice};
pub(crate) use threads::{among_threads, for_each_piece};
pub use transmla_checkpoint::config::AttentionParameters;
pub(crate) use vectors::{add_combinations, dot_products};
