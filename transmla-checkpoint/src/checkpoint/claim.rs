//! Exclusive claims on the target of a conversion.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::lock::{Held, Lock, take_lock};
use super::place::Place;
use super::unfinished::Entry;
use crate::error::CheckpointError;

/// How long a claim waits for a lock each time, and how often.
const PATIENCE: (Duration, usize) = (Duration::from_millis(20), 5);

/// An exclusive claim of this process on a target, held as long as the value lives: `.NAME.layers.lock`.
#[derive(Debug)]
pub struct Claim {
    /// `None` on file systems without locks.
    _lock: Option<Held>,
    _entry: Option<Entry>,
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
        match take_lock_soon(&path).map_err(|e| CheckpointError::io("create", &path, e))? {
            Lock::Held(held) => {
                let entry = Entry::new(held.path().to_path_buf(), None)?;
                Ok(Self {
                    _lock: Some(held),
                    _entry: Some(entry),
                })
            }
            Lock::Taken(process) => Err(CheckpointError::Busy {
                target: target.to_path_buf(),
                process,
            }),
            Lock::Unsupported => {
                let _ = fs::remove_file(&path);
                Ok(Self {
                    _lock: None,
                    _entry: None,
                })
            }
        }
    }
}

/// As [`take_lock`], with a little patience: somebody may only have looked whether it is free.
fn take_lock_soon(path: &Path) -> io::Result<Lock> {
    for _ in 0..PATIENCE.1 {
        match take_lock(path)? {
            Lock::Taken(_) => std::thread::sleep(PATIENCE.0),
            other => return Ok(other),
        }
    }
    take_lock(path)
}
