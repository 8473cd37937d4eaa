//! Safetensors folders in hub layout: one tensor at a time in, one shard at a time out.

mod dtype;
mod reader;
mod token_file;
mod writer;

pub use dtype::StorageDtype;
pub use reader::{Checkpoint, RawTensor};
pub use token_file::{read_input_ids, write_logits};
pub use writer::{CheckpointWriter, TensorSpec, parse_size};
