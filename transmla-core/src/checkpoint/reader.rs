//! Reading a checkpoint folder: headers at once, each tensor when it is needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::Dtype;

use super::fingerprint::Fingerprint;
use super::folder::{missing_weights, not_what_it_should_be};
use super::regular::{is_there, read_regular};
use super::shard::Shard;
use super::{StorageDtype, is_plain_name, names};
use crate::CoreError;

pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const SINGLE: &str = "model.safetensors";

/// Most bytes of an index; that of a model with a hundred thousand tensors has about 10 MB.
const LARGEST_INDEX: u64 = 256 << 20;

/// An opened checkpoint: one `model.safetensors`, or shards listed in `model.safetensors.index.json`.
///
/// All headers are read and checked when it is opened; weights are read and decoded on request, through a buffer of bounded
/// size. A file that has changed since it was opened is [`CoreError::Changed`], whatever is read from it.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
    pub(super) known_fingerprint: OnceLock<Fingerprint>,
    embedding_from_head: bool,
}

#[derive(Debug, Clone)]
struct Location {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// In the file.
    bytes: Range<u64>,
}

impl Checkpoint {
    /// Whether a folder has weights that [`Self::open`] would open.
    pub fn is_in(folder: &Path) -> bool {
        is_there(&folder.join(SINGLE)) || is_there(&folder.join(INDEX))
    }

    /// Opens a folder in hub layout and checks every shard's header against its length.
    ///
    /// Tensors go by the names that transformers publishes, whatever wrapper saved them.
    ///
    /// # Errors
    /// A missing or truncated file, a shard that the index names but that is not there, a tensor of which there are two
    /// that differ.
    pub fn open(folder: &Path) -> Result<Self, CoreError> {
        // Where both are there the index is left over: other programs read the single file too.
        let single = folder.join(SINGLE);
        if is_there(&single) {
            return Self::open_files(folder, vec![single])?.published();
        }
        let index = folder.join(INDEX);
        if is_there(&index) {
            return Self::open_sharded(folder, &index)?.published();
        }
        Err(missing_weights(folder))
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
            if !is_there(&path) {
                let tensors = weight_map.values().filter(|v| *v == name).count();
                return Err(CoreError::MissingFile {
                    path,
                    hint: format!("{INDEX} places {tensors} tensors in it; download the model again"),
                });
            }
            files.push(path);
        }
        // The index says which files there are; what is in them their headers know, as in transformers. An index may be stale,
        // and what is missing is missed by those who need it.
        Self::open_files(folder, files)
    }

    fn open_files(folder: &Path, files: Vec<PathBuf>) -> Result<Self, CoreError> {
        let mut shards = Vec::with_capacity(files.len());
        let mut tensors = BTreeMap::new();
        let mut copies = Vec::new();
        for path in files {
            let (shard, metadata, start) = Shard::open(&path)?;
            for (name, info) in metadata.tensors() {
                let location = Location {
                    shard: shards.len(),
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    bytes: start + info.data_offsets.0 as u64..start + info.data_offsets.1 as u64,
                };
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
        };
        for (name, copy) in copies {
            checkpoint.accept_copy(name, copy, "is in two shards")?;
        }
        Ok(checkpoint)
    }

    /// Takes note of a second tensor of a name, which must be the first one again.
    fn accept_copy(&mut self, name: String, copy: Location, twice: &str) -> Result<(), CoreError> {
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
            false => Err(CoreError::Safetensors {
                path,
                problem: format!("tensor {name} {twice}, and the two differ"),
            }),
        }
    }

    /// The same tensors by the names that transformers publishes.
    fn published(mut self) -> Result<Self, CoreError> {
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

    /// Whether what goes by the name of the embeddings is the output head, the only one of the two that is there.
    pub(crate) fn embedding_from_head(&self) -> bool {
        self.embedding_from_head
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
        self.tensors.values().map(|t| t.bytes.end - t.bytes.start).sum()
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

    /// A tensor's number format, from the header.
    pub fn dtype(&self, name: &str) -> Result<Dtype, CoreError> {
        Ok(self.location(name)?.dtype)
    }

    /// Shows `visit` a tensor as it lies in its file, little-endian, in pieces of bounded size.
    ///
    /// # Errors
    /// Absent, a file that cannot be read or has changed, or an error of `visit`.
    pub fn bytes(&self, name: &str, visit: &mut dyn FnMut(&[u8]) -> Result<(), CoreError>) -> Result<(), CoreError> {
        let location = self.location(name)?;
        let read = self.shards[location.shard].read(location.bytes.clone(), visit);
        self.unless_changed(name, read)
    }

    /// What came of reading a tensor, if its file is still what was opened; whatever else is wrong follows from a change.
    fn unless_changed(&self, name: &str, read: Result<(), CoreError>) -> Result<(), CoreError> {
        self.shards[self.location(name)?.shard].check().and(read)
    }

    /// Decodes elements of a tensor onto the end of `out`; [`Self::unless_changed`] is for the caller to ask.
    fn decode(&self, name: &str, elements: Range<usize>, out: &mut Vec<f32>) -> Result<(), CoreError> {
        let location = self.location(name)?;
        let dtype = storage_dtype(name, location.dtype)?;
        let (first, offset) = (out.len(), elements.start);
        let at = |element: usize| location.bytes.start + (element * dtype.bytes()) as u64;
        let range = at(elements.start)..at(elements.end);
        self.shards[location.shard].read(range, &mut |piece| {
            dtype.decode_onto(piece, out);
            Ok(())
        })?;
        finite(name, offset, &out[first..])
    }

    /// Decodes a tensor of known shape to `f32`.
    ///
    /// # Errors
    /// Absent, of another shape or number format, or holding NaN or infinity.
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, CoreError> {
        self.check(name, expected)?;
        let elements = expected.iter().product();
        let mut values = Vec::with_capacity(elements);
        let read = self.decode(name, 0..elements, &mut values);
        self.unless_changed(name, read)?;
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
        let elements: usize = self.location(name)?.shape.iter().product();
        storage_dtype(name, self.location(name)?.dtype)?;
        let mut decoded = Vec::new();
        for start in (0..elements).step_by(length.max(1)) {
            decoded.clear();
            let read = self.decode(name, start..elements.min(start + length.max(1)), &mut decoded);
            self.unless_changed(name, read)?;
            visit(&mut decoded)?;
        }
        Ok(())
    }

    /// Decodes some rows of a matrix `[rows, columns]`, in the order given, onto the end of `out`.
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
        let [count, width] = expected;
        // Text has the same words again and again: each row is read once.
        let mut wanted: Vec<(usize, usize)> = rows.enumerate().map(|(place, row)| (row, place)).collect();
        if let Some((row, _)) = wanted.iter().find(|(row, _)| *row >= count) {
            return Err(CoreError::TokenOutOfRange {
                id: *row as i64,
                vocab_size: count,
            });
        }
        wanted.sort_unstable();
        let first = out.len();
        out.resize(first + wanted.len() * width, 0.0);
        let mut decoded = Vec::with_capacity(width);
        let mut copies = wanted.chunk_by(|one, other| one.0 == other.0);
        let read = copies.try_for_each(|same| {
            let row = same[0].0;
            decoded.clear();
            self.decode(name, row * width..(row + 1) * width, &mut decoded)?;
            for (_, place) in same {
                let start = first + place * width;
                out[start..start + width].copy_from_slice(&decoded);
            }
            Ok(())
        });
        self.unless_changed(name, read)
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
        supported: "F32, F16, BF16 (take the model in one of these, or dequantise it first)",
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
    let bytes = read_regular(index, LARGEST_INDEX)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let parsed: Index = serde_json::from_slice(text).map_err(|e| CoreError::Json {
        path: index.to_path_buf(),
        problem: not_what_it_should_be(&bytes).map_or_else(|| e.to_string(), |what| format!("is {what}")),
    })?;
    if parsed.weight_map.is_empty() {
        return Err(CoreError::Json {
            path: index.to_path_buf(),
            problem: "weight_map is empty".into(),
        });
    }
    Ok(parsed.weight_map)
}
