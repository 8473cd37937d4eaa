//! Kernels: attention on any device, and a fused form of it for the CPU.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `scoring` | [`Scoring`]: scale, bound and window of the scores |
//! | `attention` | causal attention and its gradient; picks the form |
//! | `host` | both in blocks on the CPU: score matrices never leave the cache, keys of the future are not looked at |
//! | `product`, `exponential` | small matrix products, and a vectorised softmax |

mod attention;
mod exponential;
mod host;
mod product;
mod scoring;

pub(crate) use attention::repeat_heads;
pub use attention::{
    AttentionGradients, attend, attention_gradients, causal_attention, plain_attend, plain_attention,
    plain_attention_gradients,
};
pub use scoring::Scoring;
