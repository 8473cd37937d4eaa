//! The tensors of one file of torch.

use std::path::Path;

use super::machine::{View, state_dict};
use super::zip;
use crate::checkpoint::shard::Shard;
use crate::checkpoint::stored::{Arrangement, Stored};
use crate::error::CheckpointError;

/// Most bytes of the pickle itself, which has no weights.
const LONGEST_PROGRAM: u64 = 32 << 20;

/// The program, the order of bytes, and the folder of storages, in the folder that all are in.
const PROGRAM: &str = "/data.pkl";
const BYTE_ORDER: &str = "byteorder";
const STORAGES: &str = "data/";

/// Opens a file as the shard of this number; gives its tensors by name.
///
/// # Errors
/// [`CheckpointError::Pickle`] for what is not a state dict in the form of torch 1.6 and later.
pub(super) fn open(path: &Path, number: usize) -> Result<(Shard, Vec<(String, Stored)>), CheckpointError> {
    let refuse = |problem: String| CheckpointError::Pickle {
        path: path.to_path_buf(),
        problem,
    };
    let shard = Shard::open(path)?.ok_or_else(|| refuse("it is no regular file".into()))?;
    let mut beginning = vec![0; shard.bytes().min(4) as usize];
    shard.read_exact(&mut beginning, 0)?;
    if beginning.starts_with(b"\x80") {
        return Err(refuse(
            "it has the form of torch before 1.6, pickles one behind the other".into(),
        ));
    }
    let files = zip::files(&shard)?.map_err(refuse)?;
    let mut programs = files.iter().filter(|(name, _)| name.ends_with(PROGRAM));
    let (Some((program, place)), None) = (programs.next(), programs.next()) else {
        return Err(refuse("it has not one data.pkl, as what torch saves has".into()));
    };
    let folder = &program[..program.len() - PROGRAM.len() + 1];
    let whole = |place: &std::ops::Range<u64>, most: u64| -> Result<Vec<u8>, CheckpointError> {
        let length = place.end - place.start;
        if length > most {
            return Err(refuse(format!(
                "{program:?} has {length} bytes, at most {most} are read"
            )));
        }
        let mut bytes = vec![0; length as usize];
        shard.read_exact(&mut bytes, place.start)?;
        Ok(bytes)
    };
    if let Some(place) = files.get(&format!("{folder}{BYTE_ORDER}"))
        && whole(place, 16)? != b"little"
    {
        return Err(refuse("its numbers are those of a big-endian machine".into()));
    }
    let views = state_dict(&whole(place, LONGEST_PROGRAM)?).map_err(refuse)?;
    shard.check()?;
    let mut tensors = Vec::new();
    for (name, view) in views {
        let file = format!("{folder}{STORAGES}{}", view.storage.key);
        let place = files
            .get(&file)
            .ok_or_else(|| refuse(format!("the file {file:?} of the tensor {name} is missing")))?;
        let stored =
            stored(&view, place.clone(), number).map_err(|problem| refuse(format!("the tensor {name} {problem}")))?;
        tensors.push((name, stored));
    }
    Ok((shard, tensors))
}

/// A view of a storage that lies in these bytes.
fn stored(view: &View, place: std::ops::Range<u64>, shard: usize) -> Result<Stored, String> {
    let bytes = (view.storage.dtype.bitsize() / 8) as u64;
    let length = place.end - place.start;
    if view.storage.elements.checked_mul(bytes) != Some(length) {
        return Err(format!(
            "has a storage of {} numbers in {length} bytes",
            view.storage.elements
        ));
    }
    let elements = view.shape.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
    let elements = elements
        .filter(|all| *all <= i64::MAX as u64)
        .ok_or("has a shape that is too large")?;
    if elements > view.storage.elements {
        return Err(format!(
            "has {elements} numbers in a storage of {}",
            view.storage.elements
        ));
    }
    let dtype = view.storage.dtype.into();
    let shape: Vec<usize> = view.shape.iter().map(|size| *size as usize).collect();
    if elements == 0 {
        return Ok(Stored {
            shard,
            dtype,
            shape,
            bytes: place.start..place.start,
            arrangement: Arrangement::Plain,
        });
    }
    // The last number is the farthest one: strides are not negative.
    let last = view
        .shape
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |at, (size, stride)| {
            (size - 1).checked_mul(*stride).and_then(|step| at.checked_add(step))
        });
    let last = last.filter(|last| *last < view.storage.elements);
    let last = last.ok_or_else(|| format!("reaches beyond its storage of {} numbers", view.storage.elements))?;
    let arrangement = match contiguous(view) {
        true => Arrangement::Plain,
        false => Arrangement::Strided {
            strides: view.strides.iter().map(|stride| *stride as usize).collect(),
        },
    };
    Ok(Stored {
        shard,
        dtype,
        shape,
        bytes: place.start + view.offset * bytes..place.start + (last + 1) * bytes,
        arrangement,
    })
}

/// Whether numbers stand in the order of the tensor, without gaps.
fn contiguous(view: &View) -> bool {
    let mut expected = 1u64;
    view.shape.iter().zip(&view.strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected = expected.saturating_mul(*size);
        fits
    })
}
