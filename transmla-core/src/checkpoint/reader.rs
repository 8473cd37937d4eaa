//! Reading a checkpoint folder: headers at once, each tensor when it is needed.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::{StorageDtype, is_plain_name};
use crate::CoreError;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// An opened checkpoint: one `model.safetensors`, or shards listed in `model.safetensors.index.json`.
///
/// All headers are read and checked when it is opened; weights are memory-mapped and decoded on request.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

#[derive(Debug, Clone)]
struct Location {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// One tensor as it lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct RawTensor<'a> {
    /// Number format.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: &'a [usize],
    /// Little-endian contents.
    pub bytes: &'a [u8],
}

impl Checkpoint {
    /// Opens a folder in hub layout and checks every shard's header against its length.
    ///
    /// # Errors
    /// A missing or truncated file, a shard that the index names but that is not there, a tensor that the index
    /// places in a shard without it, a tensor that two shards have.
    pub fn open(folder: &Path) -> Result<Self, CoreError> {
        // Where both are there the index is left over: other programs read the single file too.
        let single = folder.join(SINGLE);
        if single.is_file() {
            return Self::open_files(folder, vec![single]);
        }
        let index = folder.join(INDEX);
        if index.is_file() {
            return Self::open_sharded(folder, &index);
        }
        let hint = if !folder.is_dir() {
            format!("there is no folder {}", folder.display())
        } else if single.is_symlink() || index.is_symlink() {
            "it is a link to a file that is not there; download the model again".to_owned()
        } else if folder.join("pytorch_model.bin").exists() || folder.join("pytorch_model.bin.index.json").exists() {
            "the folder has PyTorch pickles only; save the model with safe_serialization=True first".to_owned()
        } else {
            format!("a model folder has {SINGLE} or {INDEX}")
        };
        Err(CoreError::MissingFile { path: single, hint })
    }

    /// Opens one safetensors file.
    pub fn open_file(file: &Path) -> Result<Self, CoreError> {
        Self::open_files(file, vec![file.to_path_buf()])
    }

    fn open_sharded(folder: &Path, index: &Path) -> Result<Self, CoreError> {
        let weight_map = read_weight_map(index)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            if !is_plain_name(name) {
                return Err(CoreError::Json {
                    path: index.to_path_buf(),
                    problem: format!("shard name {name:?} is not a plain file name"),
                });
            }
            let path = folder.join(name);
            if !path.is_file() {
                let tensors = weight_map.values().filter(|v| *v == name).count();
                return Err(CoreError::MissingFile {
                    path,
                    hint: format!("{INDEX} places {tensors} tensors in it; download the model again"),
                });
            }
            files.push(path);
        }
        let checkpoint = Self::open_files(folder, files)?;
        for (tensor, shard) in &weight_map {
            let location = checkpoint.location(tensor)?;
            if checkpoint.shards[location.shard].path.file_name() != Some(shard.as_ref()) {
                return Err(CoreError::Json {
                    path: index.to_path_buf(),
                    problem: format!("tensor {tensor} is said to be in {shard} but is in another shard"),
                });
            }
        }
        Ok(checkpoint)
    }

    fn open_files(folder: &Path, files: Vec<PathBuf>) -> Result<Self, CoreError> {
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = BTreeMap::new();
        for path in files {
            let file = File::open(&path).map_err(|e| CoreError::io("open", &path, e))?;
            // SAFETY: the map is read-only; checkpoints are not modified while a conversion reads them.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| CoreError::io("map", &path, e))?;
            let invalid = |problem: String| CoreError::Safetensors {
                path: path.clone(),
                problem,
            };
            let (header, metadata) =
                SafeTensors::read_metadata(&map).map_err(|e| invalid(format!("{e} (file has {} bytes)", map.len())))?;
            let start = header + 8;
            let needed = start + metadata.data_len();
            if needed != map.len() {
                return Err(invalid(format!(
                    "the header describes {needed} bytes, the file has {}",
                    map.len()
                )));
            }
            for (name, info) in metadata.tensors() {
                let location = Location {
                    shard: shards.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    bytes: start + info.data_offsets.0..start + info.data_offsets.1,
                };
                if tensors.insert(name.clone(), location).is_some() {
                    return Err(invalid(format!("tensor {name} is in two shards")));
                }
            }
            shards.push(Shard { path, map });
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            shards,
            tensors,
        })
    }

    /// The folder (or file) that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names of all tensors, in lexicographic order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's shape, from the header.
    pub fn shape(&self, name: &str) -> Result<&[usize], CoreError> {
        Ok(&self.location(name)?.shape)
    }

    /// Bytes of all weights together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.bytes.len() as u64).sum()
    }

    fn location(&self, name: &str) -> Result<&Location, CoreError> {
        self.tensors.get(name).ok_or_else(|| CoreError::MissingTensor {
            name: name.to_owned(),
            folder: self.folder.clone(),
        })
    }

    /// Checks, from the header alone, that a tensor has this shape and can be decoded.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<(), CoreError> {
        let location = self.location(name)?;
        if location.shape != expected {
            return Err(CoreError::Shape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: location.shape.clone(),
            });
        }
        storage_dtype(name, location.dtype).map(|_| ())
    }

    /// A tensor as it lies in its file.
    pub fn raw(&self, name: &str) -> Result<RawTensor<'_>, CoreError> {
        let location = self.location(name)?;
        Ok(RawTensor {
            dtype: location.dtype,
            shape: &location.shape,
            bytes: &self.shards[location.shard].map[location.bytes.clone()],
        })
    }

    /// Decodes a tensor of known shape to `f32`.
    ///
    /// # Errors
    /// Absent, of another shape or number format, or holding NaN or infinity.
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, CoreError> {
        self.check(name, expected)?;
        let raw = self.raw(name)?;
        let mut values = Vec::with_capacity(raw.shape.iter().product());
        storage_dtype(name, raw.dtype)?.decode(raw.bytes, &mut values);
        finite(name, 0, &values)?;
        Ok(values)
    }

    /// Decodes a tensor to `f32` in pieces of at most `length` numbers, in order; they may be changed in place.
    ///
    /// # Errors
    /// Absent, of an unusable number format, holding NaN or infinity, or an error of `visit`.
    pub fn pieces(
        &self,
        name: &str,
        length: usize,
        visit: &mut dyn FnMut(&mut [f32]) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let raw = self.raw(name)?;
        let dtype = storage_dtype(name, raw.dtype)?;
        let mut decoded = Vec::new();
        for (index, bytes) in raw.bytes.chunks(length.max(1) * dtype.bytes()).enumerate() {
            dtype.decode(bytes, &mut decoded);
            finite(name, index * length, &decoded)?;
            visit(&mut decoded)?;
        }
        Ok(())
    }

    /// Decodes some rows of a matrix `[rows, columns]`, one after the other, into `out`.
    ///
    /// # Errors
    /// As [`Self::values`]; [`CoreError::TokenOutOfRange`] for a row beyond the matrix.
    pub fn rows(
        &self,
        name: &str,
        expected: [usize; 2],
        rows: impl Iterator<Item = usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), CoreError> {
        self.check(name, &expected)?;
        let raw = self.raw(name)?;
        let dtype = storage_dtype(name, raw.dtype)?;
        let width = expected[1] * dtype.bytes();
        let mut decoded = Vec::with_capacity(expected[1]);
        for row in rows {
            if row >= expected[0] {
                return Err(CoreError::TokenOutOfRange {
                    id: row as i64,
                    vocab_size: expected[0],
                });
            }
            dtype.decode(&raw.bytes[row * width..(row + 1) * width], &mut decoded);
            finite(name, row * expected[1], &decoded)?;
            out.extend_from_slice(&decoded);
        }
        Ok(())
    }

    /// A matrix `[rows, columns]` on a device.
    pub fn matrix(&self, name: &str, expected: [usize; 2], device: &Device) -> Result<Tensor<2>, CoreError> {
        let values = self.values(name, &expected)?;
        Ok(Tensor::from_data(TensorData::new(values, expected), device))
    }

    /// A vector on a device.
    pub fn vector(&self, name: &str, length: usize, device: &Device) -> Result<Tensor<1>, CoreError> {
        let values = self.values(name, &[length])?;
        Ok(Tensor::from_data(TensorData::new(values, [length]), device))
    }
}

fn storage_dtype(name: &str, dtype: Dtype) -> Result<StorageDtype, CoreError> {
    StorageDtype::from_safetensors(dtype).ok_or_else(|| CoreError::Dtype {
        name: name.to_owned(),
        found: format!("{dtype:?}"),
        supported: "F32, F16, BF16 (dequantise other formats first)",
    })
}

fn finite(name: &str, offset: usize, values: &[f32]) -> Result<(), CoreError> {
    // x * 0 is 0 for every finite x and NaN otherwise: one vectorised pass tells.
    if values.iter().fold(0.0f32, |sum, v| sum + v * 0.0) == 0.0 {
        return Ok(());
    }
    let index = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(CoreError::NonFinite {
        name: name.to_owned(),
        index: offset + index,
        value: values[index],
    })
}

fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>, CoreError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| CoreError::io("read", index, e))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| CoreError::Json {
        path: index.to_path_buf(),
        problem: e.to_string(),
    })?;
    if parsed.weight_map.is_empty() {
        return Err(CoreError::Json {
            path: index.to_path_buf(),
            problem: "weight_map is empty".into(),
        });
    }
    Ok(parsed.weight_map)
}
