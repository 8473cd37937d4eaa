//! The hidden folder or file that a target is written into, and what killed processes leave of such.
//!
//! Beside a target `NAME` (inside it, if it cannot be moved) there may be, for each process (and number) that writes or wrote it,
//!
//! | name | what it is |
//! | --- | --- |
//! | `.NAME.partial-PID` | the folder or file being filled |
//! | `.NAME.partial-PID.lock` | a file that its process holds an exclusive lock on for as long as it lives |
//! | `.NAME.partial-PID.old` | what was at `NAME`, between the two renames of a replacing commit |
//!
//! The lock is made before the folder and removed after it, and it lies beside the folder: so a folder is never without
//! its lock, not even while it is renamed into place. Whoever can take the lock knows that its process is gone.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::atomic::{rename_into_place, sync_folder};
use super::lock::{Held, Lock, take_lock};
use super::place::Place;
use super::unfinished::{Entry, remove, uninterrupted};
use crate::error::CheckpointError;

/// Where a folder is filled in place: the list of what belongs to it comes first, so that an ended process leaves nothing
/// that is not on it, …
const FIRST: &str = "transmla.toml";

/// … and what makes it a model comes last, the last of all last.
const LAST: [&str; 2] = ["model.safetensors.index.json", "config.json"];

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File,
}

/// A locked, hidden sibling of a target; removed when dropped, unless it was renamed into place.
#[derive(Debug)]
pub(super) struct Workspace {
    target: PathBuf,
    place: Place,
    kind: Kind,
    replace: bool,
    path: PathBuf,
    renamed: bool,
    // These two are dropped after everything else, and in this order: what is there, its lock included, is on the list.
    /// `None` on file systems without locks, where leftovers stay until somebody removes them.
    _lock: Option<Held>,
    _entry: Entry,
}

impl Workspace {
    /// Removes leftovers of killed processes, then creates a new folder or file beside the target.
    pub fn create(target: &Path, kind: Kind, replace: bool) -> Result<Self, CheckpointError> {
        let place = Place::of(target)?;
        let target = place.target().to_path_buf();
        let parent = place.folder().to_path_buf();
        fs::create_dir_all(&parent).map_err(|e| CheckpointError::io("create", &parent, e))?;
        let mut prefix = place.prefix();
        prefix.push("partial-");
        clear_leftovers(&parent, &prefix, &target)?;
        if !replace && is_there(&target) {
            return Err(exists(&target));
        }
        let (entry, path, lock) = Entry::of(&target, || claim(&parent, &prefix, kind))?;
        Ok(Self {
            target,
            place,
            kind,
            replace,
            path,
            renamed: false,
            _lock: lock,
            _entry: entry,
        })
    }

    /// The folder or file to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it into place; what was there before is removed only once the new one stands, but for a folder that cannot be
    /// moved, which is emptied and filled file by file.
    pub fn commit(mut self) -> Result<PathBuf, CheckpointError> {
        let target = self.target.clone();
        uninterrupted(&target, || self.put_into_place())?;
        Ok(target)
    }

    fn put_into_place(&mut self) -> Result<(), CheckpointError> {
        let replaces = is_there(&self.target);
        if replaces && !self.replace {
            return Err(exists(&self.target));
        }
        // What is renamed is on the disk before its new name is.
        sync_folder(&self.path);
        if self.place.is_inside() {
            self.fill_target()?;
        } else if replaces && self.kind == Kind::Folder {
            self.swap()?;
        } else {
            rename_into_place(&self.path, &self.target)
                .map_err(|e| CheckpointError::io("rename into place", &self.target, e))?;
            self.renamed = true;
        }
        Ok(())
    }

    fn swap(&mut self) -> Result<(), CheckpointError> {
        let old = with_suffix(&self.path, ".old");
        if let Err(error) = fs::rename(&self.target, &old) {
            // A mount that is not seen as one, a layer below in a container's image, another user's folder in /tmp.
            let stays = [
                io::ErrorKind::ResourceBusy,
                io::ErrorKind::CrossesDevices,
                io::ErrorKind::PermissionDenied,
            ];
            return match stays.contains(&error.kind()) && self.target.is_dir() {
                true => self.fill_target(),
                false => Err(CheckpointError::io("move aside", &self.target, error)),
            };
        }
        if let Err(error) = rename_into_place(&self.path, &self.target) {
            let _ = fs::rename(&old, &self.target);
            return Err(CheckpointError::io("rename into place", &self.target, error));
        }
        self.renamed = true;
        remove(&old).map_err(|e| CheckpointError::io("remove", &old, e))
    }

    /// Empties the target and moves every file into it.
    fn fill_target(&mut self) -> Result<(), CheckpointError> {
        let failed = |action| move |path: &Path, error| CheckpointError::io(action, path, error);
        // It is no model from the first file on that goes to the last that comes.
        let mut old = self.place.contents()?;
        old.sort_by_key(|name| !LAST.iter().any(|last| name == last));
        for name in old.iter().filter(|name| *name != FIRST) {
            let path = self.target.join(name);
            remove(&path).map_err(|e| failed("remove")(&path, e))?;
        }
        let entries = fs::read_dir(&self.path).map_err(|e| failed("list")(&self.path, e))?;
        let mut new: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        new.sort_by_key(|name| match name {
            first if first == FIRST => 0,
            other => 1 + LAST.iter().position(|last| other == last).map_or(0, |at| at + 1),
        });
        for name in new {
            let (from, to) = (self.path.join(&name), self.target.join(&name));
            move_file(&from, &to).map_err(|e| failed("move into place")(&to, e))?;
        }
        sync_folder(&self.target);
        Ok(())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = remove(&self.path);
        }
    }
}

/// Renames a file, or copies it where it would cross into another file system.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()?;
            fs::remove_file(from)
        }
        result => result,
    }
}

/// A new folder or file of this process, and the lock that goes with it.
fn claim(parent: &Path, prefix: &OsStr, kind: Kind) -> Result<(PathBuf, Option<Held>), CheckpointError> {
    // The plain name may be taken: by another writer of this process, or by a process with the same id in another
    // container.
    for attempt in 1..=100 {
        let mut name = prefix.to_os_string();
        name.push(match attempt {
            1 => std::process::id().to_string(),
            _ => format!("{}-{attempt}", std::process::id()),
        });
        let path = parent.join(name);
        let lock_path = with_suffix(&path, ".lock");
        let lock = match take_lock(&lock_path).map_err(|e| CheckpointError::io("create", &lock_path, e))? {
            Lock::Held(held) => Some(held),
            Lock::Taken(_) => continue,
            Lock::Unsupported => {
                let _ = fs::remove_file(&lock_path);
                None
            }
        };
        let made = match kind {
            Kind::Folder => fs::create_dir(&path),
            Kind::File => File::create_new(&path).map(|_| ()),
        };
        match made {
            Ok(()) => return Ok((path, lock)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(CheckpointError::io("create", &path, error)),
        }
    }
    let taken = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "too many unfinished folders of this model",
    );
    Err(CheckpointError::io("create", &parent.join(prefix), taken))
}

/// Removes what killed processes left of this target; what one of them had moved aside is put back.
fn clear_leftovers(parent: &Path, prefix: &OsStr, target: &Path) -> Result<(), CheckpointError> {
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
            fs::rename(&old, target).map_err(|e| CheckpointError::io("move back", &old, e))?;
        }
        // What cannot be removed, for instance another user's, stays and harms nobody.
        let _ = (remove(&old), remove(&folder));
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

/// Whether something has this name, be it a dangling link.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

fn exists(target: &Path) -> CheckpointError {
    let error = io::Error::new(
        io::ErrorKind::AlreadyExists,
        "it already exists (`replace` overwrites it)",
    );
    CheckpointError::io("create", target, error)
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
