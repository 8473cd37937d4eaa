//! What a checkpoint's weights are told by.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::reader::{Checkpoint, Fingerprint};
use crate::error::CheckpointError;

impl Checkpoint {
    /// A fingerprint of all tensors: their names, number formats, shapes and contents, however they are divided into shards.
    ///
    /// Everything is read once; a second call gives what the first one found, for no file may change in between.
    ///
    /// # Errors
    /// A file cannot be read, or has changed since the checkpoint was opened.
    pub fn fingerprint(&self) -> Result<Fingerprint, CheckpointError> {
        if let Some(known) = self.known_fingerprint.get() {
            return Ok(*known);
        }
        let names: Vec<&str> = self.names().collect();
        let digests: Vec<Fingerprint> = names
            .par_iter()
            .map(|name| self.tensor_fingerprint(name))
            .collect::<Result<_, _>>()?;
        let mut hasher = Sha256::new();
        digests.iter().for_each(|digest| hasher.update(digest));
        let found = hasher.finalize().into();
        Ok(*self.known_fingerprint.get_or_init(|| found))
    }

    fn tensor_fingerprint(&self, name: &str) -> Result<Fingerprint, CheckpointError> {
        let mut hasher = Sha256::new();
        // The length keeps names and what follows them apart.
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(format!("{name} {} {:?} ", self.dtype(name)?, self.shape(name)?));
        hasher.update(self.contents_fingerprint(name)?);
        Ok(hasher.finalize().into())
    }

    /// A fingerprint of a tensor's bytes alone.
    pub(super) fn contents_fingerprint(&self, name: &str) -> Result<Fingerprint, CheckpointError> {
        let mut hasher = Sha256::new();
        self.bytes(name, &mut |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        if let Some(strides) = self.location(name)?.strides() {
            hasher.update(format!("{strides:?}"));
        }
        if let Some(scales) = self.location(name)?.scales() {
            self.stored_bytes(scales, &mut |piece| {
                hasher.update(piece);
                Ok(())
            })?;
        }
        Ok(hasher.finalize().into())
    }
}
