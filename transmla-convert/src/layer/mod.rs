//! One layer: its weights, text through it, its latent attention as DeepSeek's tensors, and the norms of its latents.

pub mod assemble;
pub mod constant_entry;
pub mod factors;
pub mod input_scale;
pub mod key_norm;
pub mod latent_norm;
pub mod ridge;
pub mod rounding;
pub mod stream;
pub mod weights;
