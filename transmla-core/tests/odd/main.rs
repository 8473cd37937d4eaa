//! Odd checkpoints that people have: what transformers makes of them, or one message that says what to do.

mod configurations;
mod defaults;
mod fixture;
mod folders;
mod fused_experts;
mod gguf_files;
mod in_use;
mod refused_weights;
