//! Reading a checkpoint folder: headers at once, each tensor when it is needed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::shard::Shard;
use super::stored::Stored;
use super::tensor_dtype::TensorDtype;
use crate::error::CheckpointError;

/// Bytes whose multiples stored bytes are shown in.
const WORD: usize = 8;

/// A SHA-256 digest.
pub type Fingerprint = [u8; 32];

/// An opened checkpoint: one `model.safetensors`, shards listed in `model.safetensors.index.json`, the same that torch has saved
/// (`pytorch_model.bin`), or a GGUF file or several of one model.
///
/// All headers are read and checked when it is opened; weights are read and decoded on request, through a buffer of bounded
/// size. A file that has changed since it was opened is [`CheckpointError::Changed`], whatever is read from it.
#[derive(Debug)]
pub struct Checkpoint {
    pub(super) folder: PathBuf,
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: BTreeMap<String, Stored>,
    pub(super) known_fingerprint: OnceLock<Fingerprint>,
    pub(super) embedding_from_head: bool,
    pub(super) format: FileFormat,
}

/// The format of a checkpoint's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    Safetensors,
    Gguf,
    Pickle,
}

impl FileFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "GGUF",
            Self::Pickle => "PyTorch",
        }
    }
}

impl Checkpoint {
    /// Whether the tensor under the name of the embeddings is the output head: the checkpoint has only one of the two.
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

    /// Whether the checkpoint has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's shape, from the header.
    pub fn shape(&self, name: &str) -> Result<&[usize], CheckpointError> {
        Ok(&self.location(name)?.shape)
    }

    /// The format of the files: `safetensors`, `GGUF` or `PyTorch`.
    pub fn format(&self) -> &'static str {
        self.format.name()
    }

    /// How many tensors there are of each quantised number format, as `Q4_1 (210 tensors), Q8_0 (1 tensor)`; nothing if there are none.
    pub fn quantisation(&self) -> Option<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for stored in self.tensors.values().filter(|stored| stored.dtype.is_quantised()) {
            *counts.entry(stored.dtype.to_string()).or_default() += 1;
        }
        let parts = counts.iter().map(|(dtype, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{dtype} ({count} tensor{plural})")
        });
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Bytes of all weights together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|t| t.bytes.end - t.bytes.start).sum()
    }

    pub(super) fn location(&self, name: &str) -> Result<&Stored, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            folder: self.folder.clone(),
        })
    }

    /// Checks, from the header alone, that a tensor has this shape and can be decoded.
    pub fn check(&self, name: &str, expected: &[usize]) -> Result<(), CheckpointError> {
        let location = self.location(name)?;
        if location.shape != expected {
            return Err(CheckpointError::Shape {
                name: name.to_owned(),
                expected: expected.to_vec(),
                found: location.shape.clone(),
            });
        }
        location.numbers(name).map(|_| ())
    }

    /// A tensor's number format, from the header.
    pub fn dtype(&self, name: &str) -> Result<TensorDtype, CheckpointError> {
        Ok(self.location(name)?.dtype)
    }

    /// Passes the bytes of a tensor to `visit` as they are stored, little-endian, in pieces of bounded size.
    ///
    /// # Errors
    /// The tensor is absent, its file cannot be read or has changed, or `visit` fails.
    pub fn bytes(
        &self,
        name: &str,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        self.stored_bytes(self.location(name)?, visit)
    }

    pub(super) fn stored_bytes(
        &self,
        stored: &Stored,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let read = self.shards[stored.shard].read(stored.bytes.clone(), WORD, visit);
        self.shards[stored.shard].check().and(read)
    }

    /// The result of reading a tensor, unless a file of it has changed since it was opened: any other error follows from that.
    fn unless_changed(&self, name: &str, read: Result<(), CheckpointError>) -> Result<(), CheckpointError> {
        let stored = self.location(name)?;
        let of_scales = stored
            .scales()
            .map_or(Ok(()), |scales| self.shards[scales.shard].check());
        self.shards[stored.shard].check().and(of_scales).and(read)
    }

    /// Decodes elements of a tensor onto the end of `out`; the caller checks [`Self::unless_changed`].
    fn decode(&self, name: &str, elements: Range<usize>, out: &mut Vec<f32>) -> Result<(), CheckpointError> {
        let (first, offset) = (out.len(), elements.start);
        self.location(name)?.decode(name, &self.shards, elements, out)?;
        finite(name, offset, &out[first..])
    }

    /// Decodes a tensor of known shape to `f32`.
    ///
    /// # Errors
    /// The tensor is absent, has another shape or number format, or holds NaN or infinity.
    pub fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
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
    /// The tensor is absent, has an unsupported number format or holds NaN or infinity, or `visit` fails.
    pub fn pieces(
        &self,
        name: &str,
        length: usize,
        visit: &mut dyn FnMut(&mut [f32]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let elements = self.location(name)?.elements();
        self.location(name)?.numbers(name)?;
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
    /// As [`Self::values`]; [`CheckpointError::TokenOutOfRange`] for a row beyond the matrix.
    pub fn rows(
        &self,
        name: &str,
        expected: [usize; 2],
        rows: impl Iterator<Item = usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), CheckpointError> {
        self.check(name, &expected)?;
        let [count, width] = expected;
        // Text has the same words again and again: each row is read once.
        let mut wanted: Vec<(usize, usize)> = rows.enumerate().map(|(place, row)| (row, place)).collect();
        if let Some((row, _)) = wanted.iter().find(|(row, _)| *row >= count) {
            return Err(CheckpointError::TokenOutOfRange {
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
}

fn finite(name: &str, offset: usize, values: &[f32]) -> Result<(), CheckpointError> {
    // x * 0 is 0 for every finite x and NaN otherwise: one vectorised pass tells.
    if values.iter().fold(0.0f32, |sum, v| sum + v * 0.0) == 0.0 {
        return Ok(());
    }
    let index = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Err(CheckpointError::NonFinite {
        name: name.to_owned(),
        index: offset + index,
        value: values[index],
    })
}
