//! Writing a checkpoint shard by shard, without ever holding more than one tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::dtype::StorageDtype;
use super::file_names::{INDEX, SINGLE, is_plain_path};
use super::reader::Checkpoint;
use super::workspace::{Kind, Workspace};
use crate::error::CheckpointError;

/// Numbers copied at once.
const PIECE: usize = 4 << 20;

/// Upper bound of file sizes on any system, in bytes.
const LARGEST_FILE: u64 = 1 << 62;

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

    /// Number of elements; the largest `usize` if there are more.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product, size| product.saturating_mul(*size))
    }

    fn bytes(&self, dtype: StorageDtype) -> u64 {
        (self.elements() as u64).saturating_mul(dtype.bytes() as u64)
    }
}

/// Writes a model folder whose tensors are known in advance, in any order, one at a time.
///
/// Everything goes into a hidden sibling of the target folder; [`CheckpointWriter::commit`] writes the shard index
/// last and renames the folder into place. A writer that is dropped before that removes its files; leftovers of a
/// killed process are removed when the next writer of the same target is created.
#[derive(Debug)]
pub struct CheckpointWriter {
    // Declared, and so dropped, before the folder that the files are in.
    shards: Vec<ShardFile>,
    workspace: Workspace,
    dtype: StorageDtype,
    slots: BTreeMap<String, Slot>,
    buffer: Vec<u8>,
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
    /// The target exists (and `replace` is not set), a tensor is planned twice or fits no file, or the parent folder
    /// cannot be written to.
    pub fn create(
        target: &Path,
        tensors: &[TensorSpec],
        dtype: StorageDtype,
        max_shard_bytes: u64,
        replace: bool,
    ) -> Result<Self, CheckpointError> {
        let mut writer = Self {
            shards: Vec::new(),
            workspace: Workspace::create(target, Kind::Folder, replace)?,
            dtype,
            slots: BTreeMap::new(),
            buffer: Vec::new(),
        };
        let groups = split_into_shards(tensors, dtype, max_shard_bytes);
        let count = groups.len();
        for (index, group) in groups.into_iter().enumerate() {
            writer.create_shard(index, count, group)?;
        }
        Ok(writer)
    }

    fn create_shard(&mut self, index: usize, count: usize, group: &[TensorSpec]) -> Result<(), CheckpointError> {
        let name = if count == 1 {
            SINGLE.to_owned()
        } else {
            format!("model-{:05}-of-{count:05}.safetensors", index + 1)
        };
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0u64;
        for spec in group {
            let offset = end;
            end = end.saturating_add(spec.bytes(self.dtype));
            if end > LARGEST_FILE {
                return Err(write_error(&spec.name, &format!("shape {:?} fits no file", spec.shape)));
            }
            header.insert(
                spec.name.clone(),
                json!({
                    "dtype": self.dtype.safetensors_name(),
                    "shape": spec.shape,
                    "data_offsets": [offset, end],
                }),
            );
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let start = 8 + text.len() as u64;
        let path = self.workspace.path().join(&name);
        let mut file = File::create(&path).map_err(|e| CheckpointError::io("create", &path, e))?;
        file.write_all(&(text.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&text))
            .and_then(|()| file.set_len(start + end))
            .map_err(|e| CheckpointError::io("write", &path, e))?;
        let mut offset = start;
        for spec in group {
            let slot = Slot {
                shard: index,
                offset,
                elements: spec.elements(),
                written: 0,
            };
            offset += spec.bytes(self.dtype);
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
    /// The tensor is not planned, already written or of another size, a value is not finite or too large for the dtype, or the
    /// disk is full.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), CheckpointError> {
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
    /// The tensor is not planned, there are more values than planned, a value is not finite or too large for the dtype, or the
    /// disk is full.
    pub fn append(&mut self, name: &str, values: &[f32]) -> Result<(), CheckpointError> {
        let slot = self
            .slots
            .get_mut(name)
            .ok_or_else(|| write_error(name, "not in the plan"))?;
        if slot.written + values.len() > slot.elements {
            return Err(write_error(
                name,
                &format!("more than the planned {} values", slot.elements),
            ));
        }
        self.dtype
            .encode(name, values, &mut self.buffer)
            .map_err(|error| match error {
                CheckpointError::NonFinite { name, index, value } => CheckpointError::NonFinite {
                    name,
                    index: slot.written + index,
                    value,
                },
                other => other,
            })?;
        let shard = &mut self.shards[slot.shard];
        let offset = slot.offset + (slot.written * self.dtype.bytes()) as u64;
        shard
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| shard.file.write_all(&self.buffer))
            .map_err(|e| CheckpointError::io("write", &self.workspace.path().join(&shard.name), e))?;
        slot.written += values.len();
        Ok(())
    }

    /// Copies a tensor of another checkpoint, every value times `factor`, in pieces of bounded size.
    ///
    /// # Errors
    /// As [`Self::append`], and as [`Checkpoint::pieces`].
    pub fn copy(&mut self, source: &Checkpoint, name: &str, factor: f32) -> Result<(), CheckpointError> {
        self.copy_as(source, name, name, factor)
    }

    /// As [`Self::copy`], from one name to another.
    ///
    /// # Errors
    /// As [`Self::copy`].
    pub fn copy_as(&mut self, source: &Checkpoint, from: &str, to: &str, factor: f32) -> Result<(), CheckpointError> {
        source.pieces(from, PIECE, &mut |piece| {
            if factor != 1.0 {
                piece.iter_mut().for_each(|value| *value *= factor);
            }
            self.append(to, piece)
        })
    }

    /// Writes a small file (config, tokenizer, recipe) beside the shards or in a subfolder, and syncs it to the disk.
    ///
    /// # Errors
    /// The name is neither a plain file name nor `folder/file`, or the disk is full.
    pub fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), CheckpointError> {
        if !is_plain_path(name) {
            return Err(write_error(name, "not a plain file name"));
        }
        let path = self.workspace.path().join(name);
        if let Some((folder, _)) = name.split_once('/') {
            let folder = self.workspace.path().join(folder);
            std::fs::create_dir_all(&folder).map_err(|e| CheckpointError::io("create", &folder, e))?;
        }
        File::create(&path)
            .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
            .map_err(|e| CheckpointError::io("write", &path, e))
    }

    /// The folder being filled; complete once every tensor and `config.json` is written.
    pub fn work_folder(&self) -> &Path {
        self.workspace.path()
    }

    /// Flushes all shards and writes the shard index; the work folder is then a complete checkpoint.
    ///
    /// # Errors
    /// A planned tensor was not written, or the disk is full.
    pub fn finish(&mut self) -> Result<(), CheckpointError> {
        if let Some((name, _)) = self.slots.iter().find(|(_, slot)| slot.written != slot.elements) {
            return Err(write_error(name, "planned but not written completely"));
        }
        for shard in &self.shards {
            let path = self.workspace.path().join(&shard.name);
            shard
                .file
                .sync_all()
                .map_err(|e| CheckpointError::io("flush", &path, e))?;
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
            self.write_file(INDEX, format!("{index:#}").as_bytes())?;
        }
        Ok(())
    }

    /// Removes the finished shards and their index, for a folder whose weights are in another file.
    ///
    /// # Errors
    /// As [`Self::finish`]; a file cannot be removed.
    pub fn drop_weights(&mut self) -> Result<(), CheckpointError> {
        self.finish()?;
        let mut names: Vec<String> = self.shards.drain(..).map(|shard| shard.name).collect();
        if names.len() > 1 {
            names.push(INDEX.into());
        }
        for name in names {
            let path = self.workspace.path().join(name);
            std::fs::remove_file(&path).map_err(|e| CheckpointError::io("remove", &path, e))?;
        }
        Ok(())
    }

    /// Renames the finished folder into place; a previous folder is removed only after that.
    ///
    /// # Errors
    /// As [`Self::finish`]; the target exists by now and is not to be replaced; the rename fails.
    pub fn commit(mut self) -> Result<PathBuf, CheckpointError> {
        self.finish()?;
        let Self { workspace, shards, .. } = self;
        drop(shards); // closed: some systems rename no folder with open files in it
        workspace.commit()
    }
}

fn split_into_shards(tensors: &[TensorSpec], dtype: StorageDtype, max_bytes: u64) -> Vec<&[TensorSpec]> {
    let mut groups = Vec::new();
    let (mut start, mut used) = (0, 0u64);
    for (index, spec) in tensors.iter().enumerate() {
        let bytes = spec.bytes(dtype);
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
/// [`CheckpointError::UnknownSize`] for anything else.
pub fn parse_size(text: &str) -> Result<u64, CheckpointError> {
    let unknown = || CheckpointError::UnknownSize { found: text.to_owned() };
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
        _ => return Err(unknown()),
    };
    match text[..split].parse::<f64>() {
        Ok(number) if number > 0.0 => Ok((number * unit) as u64),
        _ => Err(unknown()),
    }
}

fn write_error(name: &str, problem: &str) -> CheckpointError {
    CheckpointError::Write {
        name: name.to_owned(),
        problem: problem.to_owned(),
    }
}
