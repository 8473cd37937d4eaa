//! Exclusive claims on the target of a conversion.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::{Held, Lock, take_lock};
use super::place::Place;
use super::unfinished::Entry;
use crate::error::CheckpointError;

/// How long a claim waits for a lock each time, and how often: somebody may only have looked whether it is free.
const PATIENCE: (Duration, usize) = (Duration::from_millis(20), 5);

/// An exclusive claim of this process on a target, held as long as the value lives: `.NAME.layers.lock`.
#[derive(Debug)]
pub struct Claim {
    /// `None` on file systems without locks.
    _lock: Option<Held>,
    _entry: Entry,
}

impl Claim {
    /// Claims a target.
    ///
    /// # Errors
    /// [`CheckpointError::Busy`] if another process (or another claim of this one) has it; the lock file cannot be created.
    pub fn of(target: &Path) -> Result<Self, CheckpointError> {
        let place = Place::of(target)?;
        fs::create_dir_all(place.folder()).map_err(|e| CheckpointError::io("create", place.folder(), e))?;
        let path = place.hidden("layers.lock");
        let mut waits = PATIENCE.1;
        loop {
            match Entry::of(target, || take(&path, target)) {
                Err(CheckpointError::Busy { .. }) if waits > 0 => {
                    waits -= 1;
                    std::thread::sleep(PATIENCE.0);
                }
                made => return made.map(|(_entry, _, _lock)| Self { _lock, _entry }),
            }
        }
    }
}

/// The lock file of a target, and the lock.
fn take(path: &Path, target: &Path) -> Result<(PathBuf, Option<Held>), CheckpointError> {
    match take_lock(path).map_err(|e| CheckpointError::io("create", path, e))? {
        Lock::Held(held) => Ok((path.to_path_buf(), Some(held))),
        Lock::Taken(process) => Err(CheckpointError::Busy {
            target: target.to_path_buf(),
            process,
        }),
        Lock::Unsupported => {
            let _ = fs::remove_file(path);
            Ok((path.to_path_buf(), None))
        }
    }
}
