//! Safetensors folders in hub layout: one tensor at a time in, one shard at a time out.

pub(crate) mod atomic;
mod claim;
pub(crate) mod companion_names;
mod companions;
pub(crate) mod dtype;
mod file_names;
mod fingerprint;
pub(crate) mod folder;
mod gguf;
pub(crate) mod lock;
pub(crate) mod names;
mod open;
pub(crate) mod origin;
mod place;
pub(crate) mod reader;
pub(crate) mod regular;
mod shard;
mod token_file;
mod unfinished;
mod workspace;
pub(crate) mod writer;

pub use atomic::replace_file;
pub use claim::Claim;
pub use companion_names::is_companion;
pub use companions::{Companion, Companions};
pub use dtype::{StorageDtype, TensorDtype};
pub use gguf::{GgufTensor, GgufValue, GgufWriter};
pub use place::{Place, real_path};
pub use reader::{Checkpoint, Fingerprint};
pub use regular::{read_regular, read_regular_text};
pub use token_file::{input_ids_file, input_ids_label, read_input_ids, write_logits};
pub use unfinished::remove_unfinished;
pub use writer::{CheckpointWriter, TensorSpec, parse_size};
