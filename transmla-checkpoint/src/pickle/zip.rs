//! The list of files in a zip archive whose files are stored as they are, as torch saves them. Nothing is unpacked.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checkpoint::shard::Shard;
use crate::error::CheckpointError;

/// The end of an archive, and the most bytes that it takes: a comment may stand behind it.
const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: u64 = 22;
const LONGEST_COMMENT: u64 = 1 << 16;

/// The same for archives of more than 4 GiB, and what says where that is.
const END_64: [u8; 4] = *b"PK\x06\x06";
const END_64_BYTES: u64 = 56;
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_64_BYTES: u64 = 20;

/// An entry of the list, and the header in front of a file.
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: u64 = 30;

/// Most files, and most bytes of their list.
const MOST_FILES: u64 = 1 << 20;
const LONGEST_LIST: u64 = 256 << 20;

/// What stands for a number that is in the extra field.
const ELSEWHERE: u64 = 0xffff_ffff;

/// Files by name, and the bytes of each.
pub(super) type Files = BTreeMap<String, Range<u64>>;

/// Reads the list of an archive.
///
/// # Errors
/// In words: it is no archive, it contradicts itself, or a file is compressed or encrypted.
pub(super) fn files(shard: &Shard) -> Result<Result<Files, String>, CheckpointError> {
    match list(shard) {
        Ok(files) => Ok(Ok(files)),
        Err(Fault::Wrong(problem)) => Ok(Err(problem)),
        Err(Fault::Unreadable(error)) => Err(error),
    }
}

enum Fault {
    Wrong(String),
    Unreadable(CheckpointError),
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Self {
        Self::Unreadable(error)
    }
}

fn wrong<T>(problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Wrong(problem.into()))
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 2)
        .map_or(0, |b| u64::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// Bytes of the archive; all of them must be there.
fn bytes(shard: &Shard, at: u64, length: u64) -> Result<Vec<u8>, Fault> {
    match at.checked_add(length) {
        Some(end) if end <= shard.bytes() => {
            let mut out = vec![0; length as usize];
            shard.read_exact(&mut out, at)?;
            Ok(out)
        }
        _ => wrong(format!("{length} bytes at {at} are beyond its {} bytes", shard.bytes())),
    }
}

fn list(shard: &Shard) -> Result<Files, Fault> {
    let size = shard.bytes();
    let tail_at = size.saturating_sub(END_BYTES + LONGEST_COMMENT);
    let tail = bytes(shard, tail_at, size - tail_at)?;
    let last = tail.len().checked_sub(END_BYTES as usize);
    let found = last.and_then(|last| (0..=last).rev().find(|at| tail[*at..*at + 4] == END));
    let Some(end) = found else {
        return wrong("it has no end of an archive: it is cut off, or no archive");
    };
    let (mut count, mut length, mut at) = (
        u16_at(&tail, end + 10),
        u32_at(&tail, end + 12),
        u32_at(&tail, end + 16),
    );
    let end_at = tail_at + end as u64;
    if let Some(locator_at) = end_at.checked_sub(LOCATOR_64_BYTES) {
        let locator = bytes(shard, locator_at, LOCATOR_64_BYTES)?;
        if locator[..4] == LOCATOR_64 {
            let record = bytes(shard, u64_at(&locator, 8), END_64_BYTES)?;
            if record[..4] != END_64 {
                return wrong("its end for large archives is not where it is said to be");
            }
            (count, length, at) = (u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48));
        }
    }
    if count > MOST_FILES || length > LONGEST_LIST || count.saturating_mul(ENTRY_BYTES as u64) > length {
        return wrong(format!("it announces {count} files in a list of {length} bytes"));
    }
    let list = bytes(shard, at, length)?;
    let mut files = Files::new();
    let mut rest = &list[..];
    for _ in 0..count {
        let (name, range, taken) = entry(shard, rest)?;
        if range.end > at {
            return wrong(format!("the file {name:?} reaches into the list of files"));
        }
        if files.insert(name.clone(), range).is_some() {
            return wrong(format!("the file {name:?} is there twice"));
        }
        rest = &rest[taken..];
    }
    Ok(files)
}

/// An entry at the beginning of some bytes: name, bytes of the file, bytes of the entry.
fn entry(shard: &Shard, list: &[u8]) -> Result<(String, Range<u64>, usize), Fault> {
    if list.len() < ENTRY_BYTES || list[..4] != ENTRY {
        return wrong("its list of files is damaged");
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(list, at) as usize);
    let taken = ENTRY_BYTES + name + extra + comment;
    let Some(text) = list
        .get(ENTRY_BYTES..ENTRY_BYTES + name)
        .filter(|_| taken <= list.len())
    else {
        return wrong("its list of files is cut off");
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return wrong("the name of a file is not UTF-8");
    };
    let extra = &list[ENTRY_BYTES + name..ENTRY_BYTES + name + extra];
    // In the extra field are those numbers alone that do not fit here, in this order.
    let mut large = large_numbers(extra).into_iter();
    let [unpacked, packed, local] = [24, 20, 42].map(|at| match u32_at(list, at) {
        ELSEWHERE => large.next(),
        number => Some(number),
    });
    let (Some(unpacked), Some(packed), Some(local)) = (unpacked, packed, local) else {
        return wrong(format!("the size of the file {text:?} is missing"));
    };
    let (flags, method) = (u16_at(list, 8), u16_at(list, 10));
    if flags & 1 != 0 || method != 0 || packed != unpacked {
        return wrong(format!(
            "the file {text:?} is compressed or encrypted, which torch does not do"
        ));
    }
    let header = bytes(shard, local, LOCAL_BYTES)?;
    if header[..4] != LOCAL || u16_at(&header, 26) as usize != name {
        return wrong(format!("the file {text:?} is not where the list has it"));
    }
    let start = local + LOCAL_BYTES + u16_at(&header, 26) + u16_at(&header, 28);
    match start.checked_add(packed) {
        Some(end) if end <= shard.bytes() => Ok((text.to_owned(), start..end, taken)),
        _ => wrong(format!("the file {text:?} ends beyond the archive")),
    }
}

/// The numbers of the extra field for large archives.
fn large_numbers(mut extra: &[u8]) -> Vec<u64> {
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let Some(field) = extra.get(4..4 + length) else { break };
        if kind == 1 {
            return (0..length / 8).map(|index| u64_at(field, 8 * index)).collect();
        }
        extra = &extra[4 + length..];
    }
    Vec::new()
}
