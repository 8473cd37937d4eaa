//! Files that a process holds an exclusive lock on for as long as it lives, and that say which process it is.
//!
//! Whoever can take such a lock knows that its process is gone, even if it was killed. A lock's file is removed by its holder
//! while it is still locked, so that nobody is left with a lock on a file that has no name any more.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Times that a lock is taken anew whose last holder was just removing it.
const ATTEMPTS: usize = 100;

/// What came of taking a lock.
#[derive(Debug)]
pub(super) enum Lock {
    Held(Held),
    /// By a living process, whose id is known if it has come to write it down.
    Taken(Option<u32>),
    /// On this file system.
    Unsupported,
}

/// A lock of this process; its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _file: File,
}

impl Held {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Locks a file exclusively; it is made if it is not there.
pub(super) fn take_lock(path: &Path) -> io::Result<Lock> {
    for _ in 0..ATTEMPTS {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => {
                // Told to people only; the lock is what counts.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                let path = path.to_path_buf();
                return Ok(Lock::Held(Held { path, _file: file }));
            }
            // Its last holder has removed the file since it was opened: the lock protects nothing.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Lock::Taken(holder(file))),
            Err(TryLockError::Error(_)) => return Ok(Lock::Unsupported),
        }
    }
    Ok(Lock::Taken(None))
}

fn holder(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.rewind()
        .and_then(|()| file.take(16).read_to_string(&mut text))
        .ok()?;
    text.trim().parse().ok()
}

/// Whether an open file is still the one of this name, which is not followed if it is a link.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
