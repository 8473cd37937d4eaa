//! The header of a safetensors file.

use std::path::Path;

use safetensors::tensor::Metadata;

use super::folder::not_what_it_should_be;
use super::shard::Shard;
use super::stored::{Arrangement, Stored};
use crate::error::CheckpointError;

/// As much as the safetensors library takes for a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that tell what a file is that has no header.
const BEGINNING: u64 = 512;

/// Bytes in front of the header, which say how long it is.
const LENGTH_BYTES: u64 = 8;

/// Opens a file as the shard of this number; gives its tensors by name.
///
/// # Errors
/// It is no regular file, or header and length do not fit together.
pub(super) fn open(path: &Path, number: usize) -> Result<(Shard, Vec<(String, Stored)>), CheckpointError> {
    let invalid = |problem: String| CheckpointError::Safetensors {
        path: path.to_path_buf(),
        problem,
    };
    let shard = Shard::open(path)?.ok_or_else(|| invalid("it is no regular file".into()))?;
    let bytes = shard.bytes();
    let in_file = |problem: &str| {
        let mut beginning = vec![0; bytes.min(BEGINNING) as usize];
        let read = shard.read_exact(&mut beginning, 0);
        let other = read.ok().and_then(|()| not_what_it_should_be(&beginning));
        let problem = other.map_or_else(|| problem.to_owned(), |what| format!("it is {what}"));
        invalid(format!("{problem} (file has {bytes} bytes)"))
    };
    if bytes < LENGTH_BYTES {
        return Err(in_file("it is too short for a header"));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    shard.read_exact(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(in_file(&format!("a header of {length} bytes is too long")));
    }
    let start = LENGTH_BYTES + length;
    if start > bytes {
        return Err(in_file(&format!("a header of {length} bytes does not fit into it")));
    }
    let mut header = vec![0; length as usize];
    shard.read_exact(&mut header, LENGTH_BYTES)?;
    shard.check()?;
    let tensors: Metadata = serde_json::from_slice(&header).map_err(|e| in_file(&e.to_string()))?;
    let needed = start.saturating_add(tensors.data_len() as u64);
    if needed != bytes {
        return Err(invalid(format!(
            "the header describes {needed} bytes, the file has {bytes} bytes"
        )));
    }
    let stored = tensors.tensors().into_iter().map(|(name, info)| {
        let stored = Stored {
            shard: number,
            dtype: info.dtype.into(),
            shape: info.shape.clone(),
            bytes: start + info.data_offsets.0 as u64..start + info.data_offsets.1 as u64,
            arrangement: Arrangement::Plain,
        };
        (name, stored)
    });
    let stored = stored.collect();
    Ok((shard, stored))
}
