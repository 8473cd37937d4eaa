//! Opening a checkpoint folder: its files, their headers, the names of its tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::block_scales;
use super::file_names::{INDEX, SINGLE, is_plain_name};
use super::folder::{missing_weights, not_what_it_should_be};
use super::fused;
use super::fused_experts;
use super::names;
use super::reader::{Checkpoint, FileFormat};
use super::regular::{is_there, read_regular};
use super::safetensors_file;
use super::stored::Stored;
use crate::error::CheckpointError;
use crate::{gguf, pickle};

/// Maximum size of an index, in bytes; that of a model with a hundred thousand tensors has about 10 MB.
const LARGEST_INDEX: u64 = 256 << 20;

impl Checkpoint {
    /// Whether a folder has weights that [`Self::open`] would open.
    pub fn is_in(folder: &Path) -> bool {
        // Several GGUF files: opening says which ones.
        let has_gguf = || gguf::locate(folder).map_or(true, |file| file.is_some());
        let names = [SINGLE, INDEX, pickle::SINGLE, pickle::INDEX];
        names.iter().any(|name| is_there(&folder.join(name))) || has_gguf()
    }

    /// Opens a folder in hub layout, a GGUF file, or a folder with one, and checks every header against its file's length.
    ///
    /// Tensors have the names that transformers publishes, whatever wrapper saved them or whatever ggml calls them, and projections
    /// that are stored together (`qkv_proj`, `gate_up_proj`, all experts of a layer) are those that they consist of.
    ///
    /// # Errors
    /// A file is missing or truncated, a shard named in the index is missing, or a tensor is stored twice with different
    /// contents.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        // Where both are there the index is left over: other programs read the single file too.
        for (format, single, index) in [
            (FileFormat::Safetensors, SINGLE, INDEX),
            (FileFormat::Pickle, pickle::SINGLE, pickle::INDEX),
        ] {
            let (single, index) = (folder.join(single), folder.join(index));
            if is_there(&single) {
                return Self::open_files(folder, vec![single], format)?
                    .published()?
                    .scaled()?
                    .unfused();
            }
            if is_there(&index) {
                return Self::open_sharded(folder, &index, format)?
                    .published()?
                    .scaled()?
                    .unfused();
            }
        }
        match gguf::locate(folder)? {
            Some(first) => Self::open_gguf(folder, &first),
            None => Err(missing_weights(folder)),
        }
    }

    fn open_gguf(model: &Path, first: &Path) -> Result<Self, CheckpointError> {
        let (shards, tensors) = gguf::open(first)?;
        let checkpoint = Self {
            folder: model.to_path_buf(),
            shards,
            tensors,
            known_fingerprint: OnceLock::new(),
            embedding_from_head: false,
            format: FileFormat::Gguf,
        };
        checkpoint.unfused()
    }

    /// Opens one safetensors file.
    pub fn open_file(file: &Path) -> Result<Self, CheckpointError> {
        Self::open_files(file, vec![file.to_path_buf()], FileFormat::Safetensors)
    }

    fn open_sharded(folder: &Path, index: &Path, format: FileFormat) -> Result<Self, CheckpointError> {
        let weight_map = read_weight_map(index)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            if !is_plain_name(name) {
                return Err(CheckpointError::Json {
                    path: index.to_path_buf(),
                    problem: format!("shard name {name:?} is not a plain file name"),
                });
            }
            let path = folder.join(name);
            if !is_there(&path) {
                let tensors = weight_map.values().filter(|v| *v == name).count();
                return Err(CheckpointError::MissingFile {
                    path,
                    hint: format!(
                        "{} places {tensors} tensors in it; download the model again",
                        index.file_name().unwrap_or_default().to_string_lossy()
                    ),
                });
            }
            files.push(path);
        }
        // The index says which files there are; what is in them their headers know, as in transformers. An index may be stale,
        // and what is missing is missed by those who need it.
        Self::open_files(folder, files, format)
    }

    fn open_files(folder: &Path, files: Vec<PathBuf>, format: FileFormat) -> Result<Self, CheckpointError> {
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = BTreeMap::new();
        let mut copies = Vec::new();
        for path in files {
            let (shard, stored) = match format {
                FileFormat::Pickle => pickle::open(&path, shards.len())?,
                _ => safetensors_file::open(&path, shards.len())?,
            };
            for (name, location) in stored {
                match tensors.contains_key(&name) {
                    true => copies.push((name, location)),
                    false => drop(tensors.insert(name, location)),
                }
            }
            shards.push(shard);
        }
        let mut checkpoint = Self {
            folder: folder.to_path_buf(),
            shards,
            tensors,
            known_fingerprint: OnceLock::new(),
            embedding_from_head: false,
            format,
        };
        for (name, copy) in copies {
            checkpoint.accept_copy(name, copy, "is in two shards")?;
        }
        Ok(checkpoint)
    }

    /// Checks that a second tensor of the same name equals the first.
    fn accept_copy(&mut self, name: String, copy: Stored, twice: &str) -> Result<(), CheckpointError> {
        let path = self.shards[copy.shard].path().to_path_buf();
        // A name that no tensor of a model has, for as long as the two are compared.
        let second = format!("{name}\0second");
        self.tensors.insert(second.clone(), copy);
        let (one, other) = (self.location(&name)?, self.location(&second)?);
        let equal = one.dtype == other.dtype
            && one.shape == other.shape
            && self.contents_fingerprint(&name)? == self.contents_fingerprint(&second)?;
        self.tensors.remove(&second);
        match equal {
            true => Ok(()),
            false => {
                let problem = format!("tensor {name} {twice}, and the two differ");
                Err(match self.format {
                    FileFormat::Pickle => CheckpointError::File { path, problem },
                    _ => CheckpointError::Safetensors { path, problem },
                })
            }
        }
    }

    /// Puts the scales of blocks with the matrices whose they are, where config.json says that there are such.
    fn scaled(mut self) -> Result<Self, CheckpointError> {
        if let Some(block) = block_scales::blocks_in(&self.folder) {
            block_scales::pair(&mut self.tensors, block, &self.folder)?;
        }
        Ok(self)
    }

    /// Cuts projections that are stored together into those that checkpoints are published with.
    fn unfused(mut self) -> Result<Self, CheckpointError> {
        fused::cut(&mut self.tensors, &self.shards)?;
        if let Some(rule) = fused_experts::rule_in(&self.folder) {
            fused_experts::cut(&mut self.tensors, &self.shards, rule)?;
        }
        Ok(self)
    }

    /// Renames tensors to the names that transformers publishes.
    fn published(mut self) -> Result<Self, CheckpointError> {
        for (stored, published) in names::changed(self.tensors.keys()) {
            let Some(location) = self.tensors.remove(&stored) else {
                continue;
            };
            match self.tensors.contains_key(&published) {
                true => self.accept_copy(published, location, &format!("is also there as {stored}"))?,
                false => drop(self.tensors.insert(published, location)),
            }
        }
        // A tied model may have been saved with the head's name alone.
        if !self.contains(names::EMBEDDING)
            && let Some(location) = self.tensors.remove(names::HEAD)
        {
            self.tensors.insert(names::EMBEDDING.into(), location);
            self.embedding_from_head = true;
        }
        Ok(self)
    }
}

fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = read_regular(index, LARGEST_INDEX)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let parsed: Index = serde_json::from_slice(text).map_err(|e| CheckpointError::Json {
        path: index.to_path_buf(),
        problem: not_what_it_should_be(&bytes).map_or_else(|| e.to_string(), |what| format!("is {what}")),
    })?;
    if parsed.weight_map.is_empty() {
        return Err(CheckpointError::Json {
            path: index.to_path_buf(),
            problem: "weight_map is empty".into(),
        });
    }
    Ok(parsed.weight_map)
}
