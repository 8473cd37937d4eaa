//! The tensors that a configuration implies, and whether a checkpoint has them.

mod headers;
mod names;
pub(crate) mod tensors;

pub use crate::config::expert_rule::MlpNames;
pub use headers::{check_headers, unused_tensors};
pub use names::layer_prefix;
pub use tensors::{attention_tensors, carried_tensors, is_attention_tensor, model_tensors, residual_tensors};
