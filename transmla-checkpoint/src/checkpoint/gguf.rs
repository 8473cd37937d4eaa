//! Writing a GGUF file, version 3: what llama.cpp reads.
//!
//! A header with keys and the list of tensors, then the tensors' data, everything little-endian and every tensor on a
//! multiple of 32 bytes (ggml's `docs/gguf.md`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::workspace::{Kind, Workspace};
use crate::error::CheckpointError;
use crate::quantized::GgufDtype;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
const ALIGNMENT: u64 = 32;

/// A value of a GGUF key.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// `uint32`.
    U32(u32),
    /// `float32`.
    F32(f32),
    /// `bool`.
    Bool(bool),
    /// `string`.
    Text(String),
    /// An array of `string`.
    Texts(Vec<String>),
    /// An array of `float32`.
    Floats(Vec<f32>),
    /// An array of `int32`.
    Ints(Vec<i32>),
}

/// A tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// Its shape, row-major; the file has it in the opposite order.
    pub shape: Vec<usize>,
    /// Number format; rows are whole blocks of it.
    pub dtype: GgufDtype,
}

impl GgufTensor {
    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() / self.dtype.block() * self.dtype.block_bytes()) as u64
    }
}

/// Writes a GGUF file whose tensors are known in advance, one at a time and in their order.
///
/// Everything goes into a hidden sibling of the target, one for each process, which [`GgufWriter::commit`] renames into place
/// and which is removed if that does not happen.
#[derive(Debug)]
pub struct GgufWriter {
    // Closed before it is removed or renamed.
    file: BufWriter<File>,
    workspace: Workspace,
    tensors: std::vec::IntoIter<GgufTensor>,
    buffer: Vec<u8>,
}

impl GgufWriter {
    /// Creates the file with its header.
    ///
    /// Without `replace`, neither this nor the commit touches a target that exists.
    ///
    /// # Errors
    /// The target exists (and `replace` is not set) or has no file name, or its folder cannot be written to.
    pub fn create(
        target: &Path,
        keys: &[(String, GgufValue)],
        tensors: Vec<GgufTensor>,
        replace: bool,
    ) -> Result<Self, CheckpointError> {
        let workspace = Workspace::create(target, Kind::File, replace)?;
        let file = File::create(workspace.path()).map_err(|e| CheckpointError::io("create", workspace.path(), e))?;
        let mut writer = Self {
            file: BufWriter::new(file),
            workspace,
            tensors: Vec::new().into_iter(),
            buffer: Vec::new(),
        };
        writer.put(&header(keys, &tensors))?;
        writer.tensors = tensors.into_iter();
        Ok(writer)
    }

    /// Writes the next tensor's values, row-major.
    ///
    /// # Errors
    /// It is another tensor's turn, the number of values is wrong, a value is not finite or too large, or the disk is full.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<(), CheckpointError> {
        let wrong = |problem: String| CheckpointError::Write {
            name: name.to_owned(),
            problem,
        };
        let tensor = self.tensors.next().ok_or_else(|| wrong("not in the plan".into()))?;
        let elements: usize = tensor.shape.iter().product();
        if tensor.name != name || elements != values.len() {
            let (planned, found) = (&tensor.name, values.len());
            return Err(wrong(format!(
                "{found} values where the plan has {elements} of {planned}"
            )));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        tensor.dtype.encode(name, values, &mut buffer)?;
        buffer.resize(buffer.len().next_multiple_of(ALIGNMENT as usize), 0);
        self.put(&buffer)?;
        self.buffer = buffer;
        Ok(())
    }

    /// Renames the file into place.
    ///
    /// # Errors
    /// A planned tensor was not written, the disk is full, the target has come to exist (and is not to be replaced), or the
    /// rename is refused.
    pub fn commit(mut self) -> Result<(), CheckpointError> {
        if let Some(tensor) = self.tensors.next() {
            return Err(CheckpointError::Write {
                name: tensor.name,
                problem: "planned but not written".into(),
            });
        }
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        flushed.map_err(|e| CheckpointError::io("flush", self.workspace.path(), e))?;
        let Self { file, workspace, .. } = self;
        drop(file); // closed: some systems rename no open file
        workspace.commit().map(|_| ())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| CheckpointError::io("write", self.workspace.path(), e))
    }
}

fn header(keys: &[(String, GgufValue)], tensors: &[GgufTensor]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        put_text(&mut out, key);
        put_value(&mut out, value);
    }
    let mut offset = 0u64;
    for tensor in tensors {
        put_text(&mut out, &tensor.name);
        out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            out.extend_from_slice(&(*size as u64).to_le_bytes());
        }
        out.extend_from_slice(&tensor.dtype.ggml_type().to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &GgufValue) {
    let kind: u32 = match value {
        GgufValue::U32(_) => 4,
        GgufValue::F32(_) => 6,
        GgufValue::Bool(_) => 7,
        GgufValue::Text(_) => 8,
        GgufValue::Texts(_) | GgufValue::Floats(_) | GgufValue::Ints(_) => 9,
    };
    out.extend_from_slice(&kind.to_le_bytes());
    match value {
        GgufValue::U32(number) => out.extend_from_slice(&number.to_le_bytes()),
        GgufValue::F32(number) => out.extend_from_slice(&number.to_le_bytes()),
        GgufValue::Bool(flag) => out.push(u8::from(*flag)),
        GgufValue::Text(text) => put_text(out, text),
        GgufValue::Texts(texts) => {
            put_array(out, 8, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
        GgufValue::Floats(numbers) => {
            put_array(out, 6, numbers.len());
            numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
        GgufValue::Ints(numbers) => {
            put_array(out, 5, numbers.len());
            numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        }
    }
}

/// What an array begins with: the kind of its values and their number.
fn put_array(out: &mut Vec<u8>, kind: u32, length: usize) {
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageDtype;

    /// Byte by byte, as the format's description has it.
    #[test]
    fn a_small_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m.gguf");
        let tensor = GgufTensor {
            name: "t".into(),
            shape: vec![1, 2],
            dtype: StorageDtype::F32.into(),
        };
        let keys = [("k".to_owned(), GgufValue::U32(7))];
        let mut writer = GgufWriter::create(&target, &keys, vec![tensor.clone()], false).unwrap();
        assert!(writer.write("t", &[1.0]).is_err());
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut writer = GgufWriter::create(&target, &keys, vec![tensor], false).unwrap();
        writer.write("t", &[1.0, -2.0]).unwrap();
        assert!(writer.write("t", &[1.0, -2.0]).is_err());
        writer.commit().unwrap();
        let file = std::fs::read(&target).unwrap();
        let mut expected: Vec<u8> = Vec::new();
        expected.extend(b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0k\x04\0\0\0\x07\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0t\x02\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        expected.resize(96, 0);
        expected.extend([0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        expected.resize(128, 0);
        assert_eq!(file, expected);
    }
}
