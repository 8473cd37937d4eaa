//! Reading little-endian values from a file front to back, none larger than what is left of it.

use std::path::{Path, PathBuf};

use crate::checkpoint::shard::Shard;
use crate::error::CheckpointError;

/// Bytes that are read ahead.
const AHEAD: usize = 64 << 10;

/// Most bytes of a text that is kept.
pub(super) const LONGEST_TEXT: u64 = 16 << 20;

/// The error of a file that is not what it should be.
pub(super) fn invalid(path: &Path, problem: impl Into<String>) -> CheckpointError {
    CheckpointError::Gguf {
        path: PathBuf::from(path),
        problem: problem.into(),
    }
}

/// A place in a file.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    shard: &'a Shard,
    at: u64,
    /// What was read ahead, and where it begins.
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Cursor<'a> {
    pub fn new(shard: &'a Shard, at: u64) -> Self {
        Self {
            shard,
            at,
            buffer: Vec::new(),
            buffer_at: at,
        }
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    pub fn left(&self) -> u64 {
        self.shard.bytes().saturating_sub(self.at)
    }

    pub fn invalid(&self, problem: impl Into<String>) -> CheckpointError {
        invalid(self.shard.path(), problem)
    }

    /// Goes over bytes without reading them.
    pub fn skip(&mut self, bytes: u64) -> Result<(), CheckpointError> {
        self.has(bytes)?;
        self.at += bytes;
        Ok(())
    }

    fn has(&self, bytes: u64) -> Result<(), CheckpointError> {
        match bytes > self.left() {
            true => Err(self.invalid(format!(
                "{bytes} bytes are announced at byte {}, where {} are left of {}",
                self.at,
                self.left(),
                self.shard.bytes()
            ))),
            false => Ok(()),
        }
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), CheckpointError> {
        self.has(out.len() as u64)?;
        if out.len() > AHEAD {
            self.shard.read_exact(out, self.at)?;
        } else {
            let behind = self.buffer_at + self.buffer.len() as u64;
            if self.at < self.buffer_at || self.at + out.len() as u64 > behind {
                self.buffer.resize(self.left().min(AHEAD as u64) as usize, 0);
                self.shard.read_exact(&mut self.buffer, self.at)?;
                self.buffer_at = self.at;
            }
            let from = (self.at - self.buffer_at) as usize;
            out.copy_from_slice(&self.buffer[from..from + out.len()]);
        }
        self.at += out.len() as u64;
        Ok(())
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A text with its length in front.
    pub fn text(&mut self, longest: u64) -> Result<String, CheckpointError> {
        let at = self.at;
        let length = self.u64()?;
        self.has(length)?;
        if length > longest {
            return Err(self.invalid(format!(
                "the text at byte {at} has {length} bytes, at most {longest} are possible"
            )));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.invalid(format!("the text at byte {at} is not UTF-8")))
    }

    /// Goes over a text.
    pub fn skip_text(&mut self) -> Result<(), CheckpointError> {
        let length = self.u64()?;
        self.skip(length)
    }
}
