//! Writing a checkpoint shard by shard, without ever holding more than one tensor.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Checkpoint, StorageDtype};
use crate::CoreError;

/// Numbers copied at once.
const PIECE: usize = 4 << 20;

/// Name and shape of a tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name in the checkpoint.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name and shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Writes a model folder whose tensors are known beforehand, in any order, one at a time.
///
/// Everything goes into a hidden sibling of the target folder; [`CheckpointWriter::commit`] writes the shard index
/// last and renames the folder into place. A writer that is dropped before removes what it wrote.
#[derive(Debug)]
pub struct CheckpointWriter {
    target: PathBuf,
    work: PathBuf,
    dtype: StorageDtype,
    shards: Vec<ShardFile>,
    slots: BTreeMap<String, Slot>,
    buffer: Vec<u8>,
    committed: bool,
}

#[derive(Debug)]
struct ShardFile {
    name: String,
    file: File,
}

#[derive(Debug)]
struct Slot {
    shard: usize,
    offset: u64,
    elements: usize,
    written: usize,
}

impl CheckpointWriter {
    /// Creates the shards, with complete headers, for the given tensors.
    ///
    /// `max_shard_bytes` bounds the data of one shard; a tensor larger than it gets a shard of its own.
    ///
    /// # Errors
    /// The target exists (and `replace` is not set), or its parent folder cannot be written to.
    pub fn create(
        target: &Path,
        tensors: &[TensorSpec],
        dtype: StorageDtype,
        max_shard_bytes: u64,
        replace: bool,
    ) -> Result<Self, CoreError> {
        if !replace && target.exists() {
            return Err(CoreError::io(
                "create",
                target,
                std::io::Error::new(std::io::ErrorKind::AlreadyExists, "it already exists (--force replaces it)"),
            ));
        }
        let name = target
            .file_name()
            .ok_or_else(|| CoreError::io("create", target, std::io::ErrorKind::InvalidInput.into()))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(|e| CoreError::io("create", &parent, e))?;
        let work = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        if work.exists() {
            fs::remove_dir_all(&work).map_err(|e| CoreError::io("remove", &work, e))?;
        }
        fs::create_dir(&work).map_err(|e| CoreError::io("create", &work, e))?;
        let mut writer = Self {
            target: target.to_path_buf(),
            work,
            dtype,
            shards: Vec::new(),
            slots: BTreeMap::new(),
            buffer: Vec::new(),
            committed: false,
        };
        let groups = split_into_shards(tensors, dtype, max_shard_bytes);
        let count = groups.len();
        for (index, group) in groups.into_iter().enumerate() {
            writer.create_shard(index, count, group)?;
        }
        Ok(writer)
    }

    fn create_shard(&mut self, index: usize, count: usize, group: &[TensorSpec]) -> Result<(), CoreError> {
        let name = if count == 1 {
            "model.safetensors".to_owned()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", index + 1)
        };
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0u64;
        for spec in group {
            let bytes = (spec.elements() * self.dtype.bytes()) as u64;
            header.insert(
                spec.name.clone(),
                json!({
                    "dtype": self.dtype.safetensors_name(),
                    "shape": spec.shape,
                    "data_offsets": [end, end + bytes],
                }),
            );
            end += bytes;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let start = 8 + text.len() as u64;
        let path = self.work.join(&name);
        let fail = |action| move |e| CoreError::io(action, &path, e);
        let path = self.work.join(&name);
        let mut file = File::create(&path).map_err(fail("create"))?;
        file.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&text))
            .and_then(|()| file.set_len(start + end))
            .map_err(|e| CoreError::io("write", &path, e))?;
        let mut offset = start;
        for spec in group {
            let slot = Slot {
                shard: index,
                offset,
                elements: spec.elements(),
                written: 0,
            };
            offset += (spec.elements() * self.dtype.bytes()) as u64;
            if self.slots.insert(spec.name.clone(), slot).is_some() {
                return Err(write_error(&spec.name, "planned twice"));
            }
        }
        self.shards.push(ShardFile { name, file });
        Ok(())
    }

    /// Number format of everything this writer writes.
    pub fn dtype(&self) -> StorageDtype {
        self.dtype
    }

    /// Writes one tensor's values, row-major, into its place.
    ///
    /// # Errors
    /// Not planned, written before, of another size, not finite, too large for the dtype, or no space left.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), CoreError> {
        match self.slots.get(name) {
            Some(slot) if slot.written != 0 => Err(write_error(name, "written twice")),
            Some(slot) if slot.elements != values.len() => Err(write_error(
                name,
                &format!("{} values where the plan has {}", values.len(), slot.elements),
            )),
            _ => self.append(name, values),
        }
    }

    /// Writes the next values of a tensor, for tensors that are made piece by piece.
    ///
    /// # Errors
    /// Not planned, more values than planned, not finite, too large for the dtype, or no space left.
    pub fn append(&mut self, name: &str, values: &[f32]) -> Result<(), CoreError> {
        let slot = self
            .slots
            .get_mut(name)
            .ok_or_else(|| write_error(name, "not in the plan"))?;
        if slot.written + values.len() > slot.elements {
            return Err(write_error(name, &format!("more than the planned {} values", slot.elements)));
        }
        self.dtype.encode(name, values, &mut self.buffer)?;
        let shard = &mut self.shards[slot.shard];
        let offset = slot.offset + (slot.written * self.dtype.bytes()) as u64;
        shard
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| shard.file.write_all(&self.buffer))
            .map_err(|e| CoreError::io("write", &self.work.join(&shard.name), e))?;
        slot.written += values.len();
        Ok(())
    }

    /// Copies a tensor of another checkpoint, every value times `factor`, in pieces of bounded size.
    ///
    /// # Errors
    /// As [`Self::append`], and as [`Checkpoint::pieces`].
    pub fn copy(&mut self, source: &Checkpoint, name: &str, factor: f32) -> Result<(), CoreError> {
        source.pieces(name, PIECE, &mut |piece| {
            if factor != 1.0 {
                piece.iter_mut().for_each(|value| *value *= factor);
            }
            self.append(name, piece)
        })
    }

    /// Writes a small file (config, tokenizer, recipe) beside the shards.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), CoreError> {
        let path = self.work.join(name);
        fs::write(&path, contents).map_err(|e| CoreError::io("write", &path, e))
    }

    /// The folder being filled; complete once every tensor and `config.json` is written.
    pub fn work_folder(&self) -> &Path {
        &self.work
    }

    /// Flushes all shards and writes the shard index; the work folder is then a complete checkpoint.
    ///
    /// # Errors
    /// A planned tensor was not written, or the disk is full.
    pub fn finish(&mut self) -> Result<(), CoreError> {
        if let Some((name, _)) = self.slots.iter().find(|(_, slot)| slot.written != slot.elements) {
            return Err(write_error(name, "planned but not written completely"));
        }
        for shard in &self.shards {
            let path = self.work.join(&shard.name);
            shard.file.sync_all().map_err(|e| CoreError::io("flush", &path, e))?;
        }
        if self.shards.len() > 1 {
            let total: u64 = self
                .slots
                .values()
                .map(|s| (s.elements * self.dtype.bytes()) as u64)
                .sum();
            let map: Map<String, Value> = self
                .slots
                .iter()
                .map(|(name, slot)| (name.clone(), Value::from(self.shards[slot.shard].name.clone())))
                .collect();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            let text = serde_json::to_vec_pretty(&index).unwrap_or_default();
            self.write_file("model.safetensors.index.json", &text)?;
        }
        Ok(())
    }

    /// Renames the finished folder into place; what was there before is removed only once the new one stands.
    ///
    /// # Errors
    /// As [`Self::finish`]; the rename is refused.
    pub fn commit(mut self) -> Result<PathBuf, CoreError> {
        self.finish()?;
        let old = self.work.with_extension("old");
        let replaces = self.target.exists();
        if replaces {
            fs::rename(&self.target, &old).map_err(|e| CoreError::io("move aside", &self.target, e))?;
        }
        if let Err(error) = fs::rename(&self.work, &self.target) {
            if replaces {
                let _ = fs::rename(&old, &self.target);
            }
            return Err(CoreError::io("rename into place", &self.target, error));
        }
        self.committed = true;
        if replaces {
            fs::remove_dir_all(&old)
                .or_else(|_| fs::remove_file(&old))
                .map_err(|e| CoreError::io("remove", &old, e))?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.work);
        }
    }
}

fn split_into_shards(tensors: &[TensorSpec], dtype: StorageDtype, max_bytes: u64) -> Vec<&[TensorSpec]> {
    let mut groups = Vec::new();
    let (mut start, mut used) = (0, 0u64);
    for (index, spec) in tensors.iter().enumerate() {
        let bytes = (spec.elements() * dtype.bytes()) as u64;
        if index > start && used + bytes > max_bytes {
            groups.push(&tensors[start..index]);
            (start, used) = (index, 0);
        }
        used += bytes;
    }
    groups.push(&tensors[start..]);
    groups
}

/// Parses a size such as `5GB`, `200MB`, `1GiB` or a plain number of bytes.
///
/// # Errors
/// A sentence naming the accepted forms.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = match text[split..].trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KIB" => 1024.0,
        "MIB" => 1024.0 * 1024.0,
        "GIB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(format!("'{text}' is not a size such as 5GB, 200MB or 2GiB")),
    };
    match text[..split].parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * unit) as u64),
        _ => Err(format!("'{text}' is not a size such as 5GB, 200MB or 2GiB")),
    }
}

fn write_error(name: &str, problem: &str) -> CoreError {
    CoreError::Write {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}
