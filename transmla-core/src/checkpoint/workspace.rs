//! The hidden folder that a checkpoint is written into, and what killed processes leave of such folders.
//!
//! Beside a target `NAME` there may be, for each process (and number) that writes or wrote it,
//!
//! | name | what it is |
//! | --- | --- |
//! | `.NAME.partial-PID` | the folder being filled |
//! | `.NAME.partial-PID.lock` | a file that its process holds an exclusive lock on for as long as it lives |
//! | `.NAME.partial-PID.old` | what was at `NAME`, between the two renames of a replacing commit |
//!
//! The lock is made before the folder and removed after it, and it lies beside the folder: so a folder is never without
//! its lock, not even while it is renamed into place. Whoever can take the lock knows that its process is gone.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::CoreError;

/// A locked, hidden sibling of a target folder; removed when dropped, unless it was renamed into place.
#[derive(Debug)]
pub(super) struct Workspace {
    target: PathBuf,
    replace: bool,
    folder: PathBuf,
    /// Nothing on file systems without locks; leftovers stay there until somebody removes them.
    lock: Option<File>,
    renamed: bool,
}

impl Workspace {
    /// Clears up after killed processes, then makes a new folder beside the target.
    pub fn create(target: &Path, replace: bool) -> Result<Self, CoreError> {
        let name = target
            .file_name()
            .ok_or_else(|| CoreError::io("create", target, io::ErrorKind::InvalidInput.into()))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(|e| CoreError::io("create", &parent, e))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".partial-");
        clear_leftovers(&parent, &prefix, target)?;
        if !replace && is_there(target) {
            return Err(exists(target));
        }
        let (folder, lock) = claim_folder(&parent, &prefix)?;
        Ok(Self {
            target: target.to_path_buf(),
            replace,
            folder,
            lock,
            renamed: false,
        })
    }

    /// The folder to fill.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Renames the folder into place; what was there before is removed only once the new one stands.
    pub fn commit(mut self) -> Result<PathBuf, CoreError> {
        let replaces = is_there(&self.target);
        if replaces && !self.replace {
            return Err(exists(&self.target));
        }
        let old = with_suffix(&self.folder, ".old");
        if replaces {
            fs::rename(&self.target, &old).map_err(|e| CoreError::io("move aside", &self.target, e))?;
        }
        if let Err(error) = fs::rename(&self.folder, &self.target) {
            if replaces {
                let _ = fs::rename(&old, &self.target);
            }
            return Err(CoreError::io("rename into place", &self.target, error));
        }
        self.renamed = true;
        if replaces {
            remove(&old).map_err(|e| CoreError::io("remove", &old, e))?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = remove(&self.folder);
        }
        if self.lock.is_some() {
            let _ = fs::remove_file(with_suffix(&self.folder, ".lock"));
        }
    }
}

/// A new folder of this process, and the lock that goes with it.
fn claim_folder(parent: &Path, prefix: &OsStr) -> Result<(PathBuf, Option<File>), CoreError> {
    // The plain name may be taken: by another writer of this process, or by a process with the same id in another
    // container.
    for attempt in 1..=100 {
        let mut name = prefix.to_os_string();
        name.push(match attempt {
            1 => std::process::id().to_string(),
            _ => format!("{}-{attempt}", std::process::id()),
        });
        let folder = parent.join(name);
        let path = with_suffix(&folder, ".lock");
        let lock = match take_lock(&path).map_err(|e| CoreError::io("create", &path, e))? {
            Lock::Held(file) => Some(file),
            Lock::Taken => continue,
            Lock::Unsupported => {
                let _ = fs::remove_file(&path);
                None
            }
        };
        match fs::create_dir(&folder) {
            Ok(()) => return Ok((folder, lock)),
            Err(error) => {
                if lock.is_some() {
                    let _ = fs::remove_file(&path);
                }
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(CoreError::io("create", &folder, error));
                }
            }
        }
    }
    let taken = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "too many unfinished folders of this model",
    );
    Err(CoreError::io("create", &parent.join(prefix), taken))
}

/// Removes what killed processes left of this target; what one of them had moved aside is put back.
fn clear_leftovers(parent: &Path, prefix: &OsStr, target: &Path) -> Result<(), CoreError> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Ok(());
    };
    let owners: BTreeSet<String> = entries
        .flatten()
        .filter_map(|entry| owner(&entry.file_name(), prefix).map(str::to_owned))
        .collect();
    for owner in owners {
        let mut name = prefix.to_os_string();
        name.push(&owner);
        let folder = parent.join(name);
        let lock_path = with_suffix(&folder, ".lock");
        // In use, or not ours to judge: left alone.
        let Ok(Lock::Held(_lock)) = take_lock(&lock_path) else {
            continue;
        };
        let old = with_suffix(&folder, ".old");
        if is_there(&old) && !is_there(target) {
            fs::rename(&old, target).map_err(|e| CoreError::io("move back", &old, e))?;
        }
        // What cannot be removed, for instance another user's, stays and harms nobody.
        let _ = (remove(&old), remove(&folder), fs::remove_file(&lock_path));
    }
    Ok(())
}

/// `PID` or `PID-N` of a name `.NAME.partial-PID…`, if it is one of ours.
fn owner<'a>(name: &'a OsStr, prefix: &OsStr) -> Option<&'a str> {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?;
    let rest = std::str::from_utf8(rest).ok()?;
    let rest = rest.strip_suffix(".lock").or(rest.strip_suffix(".old")).unwrap_or(rest);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (process, number) = rest.split_once('-').unwrap_or((rest, "0"));
    (is_number(process) && is_number(number)).then_some(rest)
}

enum Lock {
    Held(File),
    /// By a living process.
    Taken,
    /// On this file system.
    Unsupported,
}

/// Locks a file exclusively; it is made if it is not there.
fn take_lock(path: &Path) -> io::Result<Lock> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    Ok(match file.try_lock() {
        Ok(()) if is_at(&file, path) => Lock::Held(file),
        // Its last holder has removed the file since it was opened: the lock protects nothing.
        Ok(()) | Err(TryLockError::WouldBlock) => Lock::Taken,
        Err(TryLockError::Error(_)) => Lock::Unsupported,
    })
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    is_there(path)
}

/// Whether something has this name, be it a dangling link.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(kind) if kind.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn exists(target: &Path) -> CoreError {
    let error = io::Error::new(io::ErrorKind::AlreadyExists, "it already exists (--force replaces it)");
    CoreError::io("create", target, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_names_and_no_others() {
        let prefix = OsStr::new(".m.partial-");
        for (name, expected) in [
            (".m.partial-12", Some("12")),
            (".m.partial-12-3", Some("12-3")),
            (".m.partial-12.lock", Some("12")),
            (".m.partial-12-3.old", Some("12-3")),
            (".m.partial-", None),
            (".m.partial-x", None),
            (".m.partial-12-", None),
            (".m.partial-12.partial-7", None), // of a target named m.partial-12
            (".n.partial-12", None),
            ("m.partial-12", None),
        ] {
            assert_eq!(owner(OsStr::new(name), prefix), expected, "{name}");
        }
    }
}
