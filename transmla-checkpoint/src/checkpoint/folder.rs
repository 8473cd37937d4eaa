//! What is in a folder that is not what it should be, and what to do about it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::file_names::{INDEX, SINGLE};
use super::regular::read_regular;
use crate::error::CheckpointError;

/// Subfolders that a message names at most.
const NAMED: usize = 3;

/// Maximum size in bytes of an adapter's configuration, which has a few KiB.
const LARGEST_ADAPTER: u64 = 1 << 20;

/// What a file is that should be JSON or safetensors, if its first bytes tell, and what to do.
pub(crate) fn not_what_it_should_be(bytes: &[u8]) -> Option<&'static str> {
    let text = bytes.trim_ascii_start();
    if bytes.starts_with(b"version https://git-lfs") {
        Some("a git LFS pointer in place of the file; fetch the files with `git lfs pull`, or download the model again")
    } else if bytes.len() < 256 && (bytes.starts_with(b"../") || bytes.starts_with(b"..\\")) {
        Some(
            "the text of a link instead of what it led to; copy the folder with its links followed, or download it again",
        )
    } else if text.starts_with(b"<!DOCTYPE") || text.starts_with(b"<!doctype") || text.starts_with(b"<html") {
        Some("a web page in place of the file; download it again, with a token if the model asks for one")
    } else if bytes.starts_with(b"GGUF") {
        Some("a GGUF file; give it the ending .gguf, and its path as the model")
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        Some("a PyTorch pickle; save the model with safe_serialization=True first")
    } else if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        Some("text in UTF-16; save it as UTF-8")
    } else {
        None
    }
}

/// The error of a model folder without config.json.
pub(crate) fn missing_config(folder: &Path) -> CheckpointError {
    let contents = Contents::of(folder);
    let hint = if let Some(adapter) = contents.adapter() {
        adapter
    } else if contents.has(|name| name == "params.json" || name.starts_with("consolidated.")) {
        "the folder has the publisher's own format (params.json, consolidated.*); take the model in Hugging Face format"
            .to_owned()
    } else {
        match contents.models_below() {
            models if models.is_empty() => "a model folder in hub layout has config.json beside its weights".to_owned(),
            models => format!("there is a model in {}; give that folder", models.join(", ")),
        }
    };
    let path = folder.join("config.json");
    CheckpointError::MissingFile { path, hint }
}

/// The error of a model folder without weights that can be opened.
pub(super) fn missing_weights(folder: &Path) -> CheckpointError {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    let contents = Contents::of(folder);
    let has = |accept: &dyn Fn(&str) -> bool| contents.has(accept);
    let named = contents.names.iter().find(|name| name.ends_with(".safetensors"));
    let hint = if !folder.is_dir() {
        format!("there is no folder {}", folder.display())
    } else if single.is_symlink() || index.is_symlink() {
        "it is a link to a file that is not there; download the model again".to_owned()
    } else if let Some(adapter) = contents.adapter() {
        adapter
    } else if has(&|name| name.starts_with("pytorch_model") && name.contains(".bin")) {
        "the folder has PyTorch pickles that are neither pytorch_model.bin nor listed in pytorch_model.bin.index.json; download that \
         too, or save the model with safe_serialization=True"
            .to_owned()
    } else if has(&|name| name.starts_with("model-") && name.ends_with(".safetensors")) {
        format!("there are shards but no {INDEX}, which says what is in them; download it too")
    } else if has(&|name| name.starts_with("consolidated")) {
        format!(
            "the folder has the publisher's own format (consolidated.*) only; a model folder has {SINGLE} or {INDEX}: \
             download those"
        )
    } else if let Some(named) = named {
        format!(
            "a model folder has {SINGLE} or {INDEX}; there is {named}, which no program looks for: rename it if it is the model"
        )
    } else if has(&|name| name.ends_with(".gguf")) {
        "the folder has a GGUF file only, of an architecture that is not read; take the safetensors that it was made from"
            .to_owned()
    } else if has(&|name| name.ends_with(".h5") || name.ends_with(".msgpack")) {
        "the folder has weights for TensorFlow or Flax only; load them with transformers and save them again".to_owned()
    } else {
        format!("a model folder has {SINGLE} or {INDEX}")
    };
    CheckpointError::MissingFile { path: single, hint }
}

/// Names of what is in a folder, in order.
struct Contents<'a> {
    folder: &'a Path,
    names: Vec<String>,
}

impl<'a> Contents<'a> {
    fn of(folder: &'a Path) -> Self {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Self { folder, names }
    }

    fn has(&self, accept: impl Fn(&str) -> bool) -> bool {
        self.names.iter().any(|name| accept(name))
    }

    /// What to do about a folder with an adapter.
    fn adapter(&self) -> Option<String> {
        let config = self.folder.join("adapter_config.json");
        if !config.is_file() && !self.has(|name| name.starts_with("adapter_model.")) {
            return None;
        }
        let keys: Option<Value> = read_regular(&config, LARGEST_ADAPTER)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let base = keys
            .as_ref()
            .and_then(|keys| keys.get("base_model_name_or_path")?.as_str());
        Some(format!(
            "the folder has an adapter{}, not a model; merge it into its base model first (peft's merge_and_unload, then \
             save_pretrained) and convert that folder",
            base.map_or_else(String::new, |base| format!(" for {base}"))
        ))
    }

    /// Subfolders that are model folders.
    fn models_below(&self) -> Vec<String> {
        let below = |name: &String| -> Option<PathBuf> {
            let folder = self.folder.join(name);
            folder.join("config.json").is_file().then_some(folder)
        };
        let found = self.names.iter().filter_map(below).take(NAMED);
        found.map(|folder| folder.display().to_string()).collect()
    }
}
