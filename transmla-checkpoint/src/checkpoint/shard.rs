//! One safetensors file: its header, its bytes by position, and whether it is still the file that was opened.
//!
//! Files are read into buffers of this program and never mapped: a mapped file that another process cuts short ends this
//! one by a signal. A file that is written to while it is read is found out after every read, by its size and times.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use safetensors::tensor::Metadata;

use super::folder::not_what_it_should_be;
use crate::error::CheckpointError;

/// Bytes read at once: they stay in the processor's cache until they are decoded.
const PIECE: usize = 256 << 10;

/// As much as the safetensors library takes for a header.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes that tell what a file is that has no header.
const BEGINNING: u64 = 512;

/// Bytes in front of the header, which say how long it is.
const LENGTH_BYTES: u64 = 8;

thread_local! {
    /// Each thread's buffer: fresh memory costs more than reading into it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An open file of tensors.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// What a file is told by; taken from the open file, so that it belongs to what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    bytes: u64,
    modified: Option<SystemTime>,
    node: Node,
}

/// Device and number of a file, on systems that have them.
type Node = (u64, u64);

impl Identity {
    fn of(data: &fs::Metadata) -> Self {
        Self {
            bytes: data.len(),
            modified: data.modified().ok(),
            node: node(data),
        }
    }

    /// How another one differs, if it does.
    fn difference(&self, now: &Self) -> Option<String> {
        if now.bytes != self.bytes {
            Some(format!("it had {} bytes and has {}", self.bytes, now.bytes))
        } else if now.modified != self.modified {
            Some("it has been written to".into())
        } else if now.node != self.node {
            Some("another file has taken its place".into())
        } else {
            None
        }
    }
}

impl Shard {
    /// Opens a file; gives its tensors, and where their data begins.
    ///
    /// # Errors
    /// It is no regular file, or header and length do not fit together.
    pub fn open(path: &Path) -> Result<(Self, Metadata, u64), CheckpointError> {
        // A pipe would keep whoever opens it waiting.
        let kind = fs::metadata(path).map_err(|e| CheckpointError::io("open", path, e))?;
        let invalid = |problem: String| CheckpointError::Safetensors {
            path: path.to_path_buf(),
            problem,
        };
        if !kind.is_file() {
            return Err(invalid("it is no regular file".into()));
        }
        let file = File::open(path).map_err(|e| CheckpointError::io("open", path, e))?;
        let data = file.metadata().map_err(|e| CheckpointError::io("read", path, e))?;
        let shard = Self {
            path: path.to_path_buf(),
            file,
            identity: Identity::of(&data),
        };
        let bytes = shard.identity.bytes;
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
        Ok((shard, tensors, start))
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows `visit` these bytes in order, in pieces whose length is a multiple of 8 but for the last. Whether they are those
    /// of the file that was opened is told by [`Self::check`] afterwards.
    ///
    /// # Errors
    /// The file cannot be read; an error of `visit`.
    pub fn read(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut buffer = BUFFER.take();
        buffer.resize(PIECE, 0);
        let result = self.read_through(&mut buffer, range, visit);
        BUFFER.set(buffer);
        result
    }

    fn read_through(
        &self,
        buffer: &mut [u8],
        range: Range<u64>,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut offset = range.start;
        while offset < range.end {
            let length = (range.end - offset).min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..length];
            self.read_exact(piece, offset)?;
            visit(piece)?;
            offset += length as u64;
        }
        Ok(())
    }

    fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), CheckpointError> {
        read_exact_at(&self.file, buffer, offset).map_err(|e| match self.check() {
            Err(changed) => changed,
            Ok(()) => CheckpointError::io("read", &self.path, e),
        })
    }

    /// Checks that the open file and the one of its name are both what was opened.
    ///
    /// # Errors
    /// [`CheckpointError::Changed`].
    pub fn check(&self) -> Result<(), CheckpointError> {
        let changed = |problem: String| CheckpointError::Changed {
            path: self.path.clone(),
            problem,
        };
        let here = self
            .file
            .metadata()
            .map_err(|e| CheckpointError::io("read", &self.path, e))?;
        let there = fs::metadata(&self.path).map_err(|e| changed(format!("it is no longer there: {e}")))?;
        [here, there]
            .iter()
            .find_map(|data| self.identity.difference(&Identity::of(data)))
            .map_or(Ok(()), |problem| Err(changed(problem)))
    }
}

#[cfg(unix)]
fn node(data: &fs::Metadata) -> Node {
    use std::os::unix::fs::MetadataExt;
    (data.dev(), data.ino())
}

#[cfg(not(unix))]
fn node(_: &fs::Metadata) -> Node {
    (0, 0)
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
