//! Safetensors folders in hub layout: one tensor at a time in, one shard at a time out.

mod dtype;
mod folder;
mod gguf;
mod names;
mod reader;
mod token_file;
mod workspace;
mod writer;

pub use dtype::StorageDtype;
pub(crate) use folder::{missing_config, not_what_it_should_be};
pub use gguf::{GgufTensor, GgufValue, GgufWriter};
pub(crate) use names::{EMBEDDING, HEAD};
pub use reader::{Checkpoint, RawTensor};
pub use token_file::{read_input_ids, write_logits};
pub use writer::{CheckpointWriter, TensorSpec, parse_size};

/// Whether a name is that of a file in a folder, not a path to somewhere else.
fn is_plain_name(name: &str) -> bool {
    let mut parts = std::path::Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(part)) if part == name) && parts.next().is_none()
}
