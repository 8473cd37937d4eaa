//! One file of tensors: its bytes by position, and whether it is still the file that was opened.
//!
//! Files are read into buffers of this program and never mapped: a mapped file that another process cuts short ends this
//! one by a signal. A file that is written to while it is read is found out after every read, by its size and times.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::CheckpointError;

/// Bytes read at once: they stay in the processor's cache until they are decoded.
const PIECE: usize = 256 << 10;

thread_local! {
    /// Each thread's buffer: fresh memory costs more than reading into it.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An open file of tensors.
#[derive(Debug)]
pub(crate) struct Shard {
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
    /// Opens a regular file; nothing if it is something else.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn open(path: &Path) -> Result<Option<Self>, CheckpointError> {
        // A pipe would keep whoever opens it waiting.
        let kind = fs::metadata(path).map_err(|e| CheckpointError::io("open", path, e))?;
        if !kind.is_file() {
            return Ok(None);
        }
        let file = File::open(path).map_err(|e| CheckpointError::io("open", path, e))?;
        let data = file.metadata().map_err(|e| CheckpointError::io("read", path, e))?;
        Ok(Some(Self {
            path: path.to_path_buf(),
            file,
            identity: Identity::of(&data),
        }))
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.identity.bytes
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows `visit` these bytes in order, in pieces whose length is a multiple of `unit` but for the last. Whether they are those
    /// of the file that was opened is told by [`Self::check`] afterwards.
    ///
    /// # Errors
    /// The file cannot be read; an error of `visit`.
    pub fn read(
        &self,
        range: Range<u64>,
        unit: usize,
        visit: &mut dyn FnMut(&[u8]) -> Result<(), CheckpointError>,
    ) -> Result<(), CheckpointError> {
        let mut buffer = BUFFER.take();
        buffer.resize(PIECE, 0);
        let whole = PIECE / unit.clamp(1, PIECE) * unit.clamp(1, PIECE);
        let result = self.read_through(&mut buffer[..whole], range, visit);
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

    /// Fills a buffer from a place in the file.
    ///
    /// # Errors
    /// The file cannot be read there, or has changed.
    pub fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), CheckpointError> {
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
