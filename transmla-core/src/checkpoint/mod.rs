//! Safetensors folders in hub layout: one tensor at a time in, one shard at a time out.

mod companions;
mod dtype;
mod fingerprint;
mod folder;
mod gguf;
mod lock;
mod names;
mod origin;
mod place;
mod reader;
mod regular;
mod shard;
mod token_file;
mod unfinished;
mod workspace;
mod writer;

pub use companions::{Companion, Companions, is_companion};
pub use dtype::StorageDtype;
pub use fingerprint::Fingerprint;
pub(crate) use folder::{missing_config, not_what_it_should_be};
pub use gguf::{GgufTensor, GgufValue, GgufWriter};
pub use lock::Claim;
pub(crate) use names::{EMBEDDING, HEAD};
pub(crate) use origin::forget_origin_in;
pub use place::{Place, real_path};
pub use reader::Checkpoint;
pub(crate) use regular::is_there;
pub use regular::{read_regular, read_regular_text};
pub use token_file::{read_input_ids, write_logits};
pub use unfinished::remove_unfinished;
pub use writer::{CheckpointWriter, TensorSpec, parse_size};

/// Whether a name is that of a file in a folder or in one folder below, not a path to somewhere else.
fn is_plain_path(name: &str) -> bool {
    match name.split_once('/') {
        Some((folder, file)) => is_plain_name(folder) && is_plain_name(file),
        None => is_plain_name(name),
    }
}

/// Whether a name is that of a file in a folder, not a path to somewhere else.
fn is_plain_name(name: &str) -> bool {
    let mut parts = std::path::Path::new(name).components();
    matches!(parts.next(), Some(std::path::Component::Normal(part)) if part == name) && parts.next().is_none()
}
