//! The header of a GGUF file: keys, and the list of tensors. Nothing in it is believed before it is checked against the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::cursor::{Cursor, invalid};
use super::values::{Array, Value};
use crate::checkpoint::folder::not_what_it_should_be;
use crate::checkpoint::shard::Shard;
use crate::error::CheckpointError;
use crate::quantized::GgmlType;

/// Most bytes of a key and of a tensor's name.
const LONGEST_KEY: u64 = 1 << 16;
const LONGEST_NAME: u64 = 256;

/// Least bytes that a key and a tensor take in a header.
const LEAST_KEY: u64 = 8 + 4 + 1;
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// Most bytes of a header; that of a vocabulary of 256 thousand tokens with merges has about 12 MB.
const LONGEST_HEADER: u64 = 512 << 20;

/// Most dimensions of a tensor.
const DIMENSIONS: u32 = 4;

/// Alignment of tensors where no key says it, and the largest one.
const ALIGNMENT: u64 = 32;
const LARGEST_ALIGNMENT: u64 = 1 << 20;

/// An opened file.
#[derive(Debug)]
pub(super) struct Header {
    pub shard: Shard,
    keys: BTreeMap<String, Value>,
    pub tensors: Vec<Description>,
}

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub(super) struct Description {
    pub name: String,
    /// Row-major; the file has it in the opposite order.
    pub shape: Vec<usize>,
    pub dtype: GgmlType,
    pub bytes: Range<u64>,
}

impl Header {
    /// Reads and checks a file's header.
    ///
    /// # Errors
    /// [`CheckpointError::Gguf`] for what is no GGUF file of version 2 or 3, or contradicts itself.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let shard = Shard::open(path)?.ok_or_else(|| invalid(path, "it is no regular file"))?;
        let mut cursor = Cursor::new(&shard, 0);
        let magic = cursor.array::<4>()?;
        if &magic != b"GGUF" {
            let mut beginning = vec![0; shard.bytes().min(512) as usize];
            shard.read_exact(&mut beginning, 0)?;
            let other = not_what_it_should_be(&beginning);
            return Err(
                cursor.invalid(other.map_or("it does not begin with GGUF".into(), |what| format!("it is {what}")))
            );
        }
        match cursor.u32()? {
            2 | 3 => {}
            version if version.swap_bytes() < 256 => {
                return Err(cursor.invalid("it is for big-endian machines; take the usual, little-endian file"));
            }
            version => {
                return Err(cursor.invalid(format!(
                    "it has version {version} of the format; versions 2 and 3 are read: make it again with a newer llama.cpp"
                )));
            }
        }
        let (tensor_count, key_count) = (cursor.u64()?, cursor.u64()?);
        for (count, least, what) in [(key_count, LEAST_KEY, "keys"), (tensor_count, LEAST_TENSOR, "tensors")] {
            if count > cursor.left() / least {
                return Err(cursor.invalid(format!(
                    "{count} {what} are announced where {} bytes are left",
                    cursor.left()
                )));
            }
        }
        let mut keys = BTreeMap::new();
        for _ in 0..key_count {
            let key = cursor.text(LONGEST_KEY)?;
            let value = Value::read(&mut cursor)?;
            if keys.contains_key(&key) {
                return Err(cursor.invalid(format!("the key {key:?} is there twice")));
            }
            keys.insert(key, value);
            bounded(&cursor)?;
        }
        let mut described = Vec::new();
        for _ in 0..tensor_count {
            described.push(describe(&mut cursor)?);
            bounded(&cursor)?;
        }
        let alignment = match keys.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Integer(given)) => u64::try_from(*given)
                .ok()
                .filter(|given| given.is_power_of_two() && (8..=LARGEST_ALIGNMENT).contains(given))
                .ok_or_else(|| cursor.invalid(format!("general.alignment is {given}")))?,
            Some(_) => return Err(cursor.invalid("general.alignment is no integer")),
        };
        let start = cursor.at().next_multiple_of(alignment);
        let tensors = place(&shard, described, start, alignment)?;
        shard.check()?;
        Ok(Self { shard, keys, tensors })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        self.shard.path()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// A key that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A key that is an integer of 0 or more.
    pub fn integer(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Integer(integer) => u64::try_from(*integer).ok(),
            _ => None,
        }
    }

    /// A key that is a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.get(key)? {
            Value::Integer(integer) => Some(*integer as f64),
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A key that is true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    fn array(&self, key: &str) -> Option<Array> {
        match self.get(key)? {
            Value::Array(array) => Some(*array),
            _ => None,
        }
    }

    /// The texts of an array.
    ///
    /// # Errors
    /// The file cannot be read, or has changed.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        let Some(array) = self.array(key) else { return Ok(None) };
        let texts = array.texts(&mut Cursor::new(&self.shard, array.place()));
        self.shard.check().and(texts)
    }

    /// The numbers of an array.
    ///
    /// # Errors
    /// The file cannot be read, or has changed.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some(array) = self.array(key) else { return Ok(None) };
        let numbers = array.numbers(&mut Cursor::new(&self.shard, array.place()));
        self.shard.check().and(numbers)
    }

    /// The error of a file that cannot be used.
    pub fn invalid(&self, problem: impl Into<String>) -> CheckpointError {
        invalid(self.path(), problem)
    }
}

fn bounded(cursor: &Cursor<'_>) -> Result<(), CheckpointError> {
    match cursor.at() > LONGEST_HEADER {
        true => Err(cursor.invalid(format!("its header has more than {LONGEST_HEADER} bytes"))),
        false => Ok(()),
    }
}

/// A tensor's entry; its bytes are relative to the data.
fn describe(cursor: &mut Cursor<'_>) -> Result<Description, CheckpointError> {
    let name = cursor.text(LONGEST_NAME)?;
    let dimensions = cursor.u32()?;
    if !(1..=DIMENSIONS).contains(&dimensions) {
        return Err(cursor.invalid(format!("tensor {name} has {dimensions} dimensions")));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64()?);
    }
    let number = cursor.u32()?;
    let offset = cursor.u64()?;
    let dtype = GgmlType::of_number(number).ok_or_else(|| {
        cursor.invalid(format!(
            "tensor {name} has the number format {number} of ggml; read are {}: take a file in one of these",
            GgmlType::READ
        ))
    })?;
    let (row, block) = (shape[0], dtype.block() as u64);
    let elements = shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
    let elements = elements.filter(|all| *all > 0 && *all <= i64::MAX as u64 / 4);
    let elements = elements.ok_or_else(|| cursor.invalid(format!("tensor {name} has the shape {shape:?}")))?;
    if !row.is_multiple_of(block) {
        return Err(cursor.invalid(format!(
            "tensor {name} has rows of {row} numbers, {dtype} has blocks of {block}"
        )));
    }
    let end = (elements / block)
        .checked_mul(dtype.block_bytes() as u64)
        .and_then(|length| offset.checked_add(length));
    let end = end.ok_or_else(|| cursor.invalid(format!("tensor {name} ends beyond all files")))?;
    Ok(Description {
        name,
        shape: shape.iter().rev().map(|size| *size as usize).collect(),
        dtype,
        bytes: offset..end,
    })
}

/// Puts tensors where they are in the file, each in a place of its own.
fn place(
    shard: &Shard,
    mut tensors: Vec<Description>,
    start: u64,
    alignment: u64,
) -> Result<Vec<Description>, CheckpointError> {
    let refuse = |problem: String| Err(invalid(shard.path(), problem));
    let mut names = BTreeSet::new();
    for tensor in &mut tensors {
        if !names.insert(tensor.name.clone()) {
            return refuse(format!("tensor {} is there twice", tensor.name));
        }
        if !tensor.bytes.start.is_multiple_of(alignment) {
            return refuse(format!(
                "tensor {} begins at {}, no multiple of {alignment}",
                tensor.name, tensor.bytes.start
            ));
        }
        let (first, end) = (
            start.checked_add(tensor.bytes.start),
            start.checked_add(tensor.bytes.end),
        );
        match (first, end) {
            (Some(first), Some(end)) if end <= shard.bytes() => tensor.bytes = first..end,
            _ => {
                return refuse(format!(
                    "tensor {} ends at byte {} of the data, the file has {} bytes: it is not whole, download or copy it again",
                    tensor.name,
                    tensor.bytes.end,
                    shard.bytes()
                ));
            }
        }
    }
    let mut order: Vec<&Description> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.bytes.start);
    if let Some([one, other]) = order
        .array_windows()
        .find(|[one, other]| one.bytes.end > other.bytes.start)
    {
        return refuse(format!("tensors {} and {} overlap", one.name, other.name));
    }
    Ok(tensors)
}
