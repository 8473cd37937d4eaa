//! Files that go with a model's weights, by name, wherever the model has them.

use std::path::{Path, PathBuf};

use super::regular::{is_there, read_regular};
use crate::error::CheckpointError;
use crate::gguf;

/// The contents of a file that goes with a model's weights, such as `tokenizer.json`; nothing if the model has no such file.
///
/// `model` is a folder, a GGUF file, or a folder with one. A GGUF file has the tokenizer, its settings with the chat template, and the
/// stop ids among its keys, of which the files are made; one that lies beside it goes first.
///
/// # Errors
/// The file cannot be read, is no regular file or larger than `most` bytes; or it would have to be made of a GGUF file's keys, and cannot
/// be.
pub fn model_file(model: &Path, name: &str, most: u64) -> Result<Option<Vec<u8>>, CheckpointError> {
    let first = gguf::locate(model)?;
    let path = files_of(model, first.as_deref()).join(name);
    if is_there(&path) {
        return read_regular(&path, most).map(Some);
    }
    match first {
        Some(first) => gguf::companion(&first, name),
        None => Ok(None),
    }
}

/// The folder with the files that go with a model's weights.
pub(super) fn files_of(model: &Path, first: Option<&Path>) -> PathBuf {
    match first.map(|first| first.parent().unwrap_or(first)) {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_path_buf(),
        None => model.to_path_buf(),
    }
}
