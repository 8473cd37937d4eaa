//! Names of the files of a model folder.

use std::path::{Component, Path};

/// The weights, where one file has them all.
pub(crate) const SINGLE: &str = "model.safetensors";

/// Which shard has which tensor.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// Whether a name is that of a file in a folder or in one folder below, not a path to somewhere else.
pub(super) fn is_plain_path(name: &str) -> bool {
    match name.split_once('/') {
        Some((folder, file)) => is_plain_name(folder) && is_plain_name(file),
        None => is_plain_name(name),
    }
}

/// Whether a name is that of a file in a folder, not a path to somewhere else.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(part)) if part == name) && parts.next().is_none()
}
