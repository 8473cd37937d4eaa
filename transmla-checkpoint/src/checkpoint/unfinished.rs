//! The list of unfinished files of this process, for programs that must end at once.
//!
//! A signal may come at any time, and what computes then cannot be stopped at once. So unfinished files are listed here
//! when they are created, and the thread that receives the signal removes them and ends the process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lock::Held;
use crate::error::CheckpointError;

/// Times that a folder is removed anew into which a thread has put another file.
const ATTEMPTS: usize = 20;

struct Unfinished {
    /// Nothing is made or renamed into place any more.
    closed: bool,
    /// What there is, and its lock, by number.
    entries: Vec<(u64, PathBuf, Option<PathBuf>)>,
    next: u64,
}

static UNFINISHED: Mutex<Unfinished> = Mutex::new(Unfinished {
    closed: false,
    entries: Vec::new(),
    next: 0,
});

fn lock() -> MutexGuard<'static, Unfinished> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The entry of an unfinished file or folder; removed from the list when dropped.
#[derive(Debug)]
pub(super) struct Entry(u64);

impl Entry {
    /// Makes a file or folder with its lock, and adds them to the list before a signal can come in between.
    ///
    /// # Errors
    /// [`CheckpointError::Ending`] after [`remove_unfinished`]; those of `make`.
    pub fn of(
        target: &Path,
        make: impl FnOnce() -> Result<(PathBuf, Option<Held>), CheckpointError>,
    ) -> Result<(Self, PathBuf, Option<Held>), CheckpointError> {
        let mut all = lock();
        if all.closed {
            return Err(CheckpointError::Ending {
                path: target.to_path_buf(),
            });
        }
        let (path, held) = make()?;
        let entry = all.add(path.clone(), held.as_ref().map(|held| held.path().to_path_buf()));
        Ok((entry, path, held))
    }
}

impl Unfinished {
    /// Adds a file or folder, and its lock.
    fn add(&mut self, path: PathBuf, its_lock: Option<PathBuf>) -> Entry {
        self.next += 1;
        self.entries.push((self.next, path, its_lock));
        Entry(self.next)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock().entries.retain(|(number, ..)| *number != self.0);
    }
}

/// Runs work that must not be interrupted half-way: [`remove_unfinished`] waits until it is done.
///
/// # Errors
/// [`CheckpointError::Ending`] after [`remove_unfinished`]; those of `work`.
pub(super) fn uninterrupted<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, CheckpointError>,
) -> Result<T, CheckpointError> {
    let all = lock();
    if all.closed {
        return Err(CheckpointError::Ending {
            path: path.to_path_buf(),
        });
    }
    work()
}

/// Removes every unfinished folder and file of this process, and its locks: for a program that is about to end.
///
/// From then on nothing is created or renamed into place ([`CheckpointError::Ending`]). Waits for a rename in progress.
/// Layers that conversions keep for a next run stay.
pub fn remove_unfinished() {
    let mut all = lock();
    all.closed = true;
    // The last first: a claim is given up after what was made under it.
    for (_, path, its_lock) in all.entries.drain(..).rev() {
        remove_both(&path, its_lock.as_deref());
    }
}

/// The lock last: a folder is never without it.
fn remove_both(path: &Path, its_lock: Option<&Path>) {
    for _ in 0..ATTEMPTS {
        match remove(path) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(_) => {}
        }
    }
    let _ = its_lock.map(fs::remove_file);
}

/// Removes a file, a link or a whole folder.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    }
}
