//! Files that are replaced as a whole: other processes see what was there before or what is new, never a part of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::CheckpointError;

/// Writes a whole file, by way of a hidden file beside it.
///
/// What was there before is replaced by its name: nothing is written through a link.
///
/// # Errors
/// [`CheckpointError::Io`] if the path has no file name, the disk is full, or the folder cannot be written to. The file is
/// then what it was before.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<(), CheckpointError> {
    let failed = |error| CheckpointError::io("write", path, error);
    let name = path
        .file_name()
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".partial-{}", std::process::id()));
    replace_file(&path.with_file_name(hidden), path, contents).map_err(failed)
}

/// Writes `contents` to the new file `temporary`, which must be on the file system of `target`, and renames it to `target`.
///
/// # Errors
/// The disk is full, or a file cannot be written or renamed; `temporary` is removed then.
pub(crate) fn replace_file(temporary: &Path, target: &Path, contents: &[u8]) -> io::Result<()> {
    let written = File::create(temporary)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| rename_into_place(temporary, target));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Renames a file or folder, and sees to it that its new name is on the disk.
///
/// # Errors
/// The system refuses the rename.
pub(super) fn rename_into_place(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => sync_folder(Path::new(".")),
    }
    Ok(())
}

/// Sees to it that the names in a folder are on the disk, on systems that can.
pub(super) fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    #[cfg(not(unix))]
    let _ = folder;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_or_left() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, target) = (folder.path().join("t"), folder.path().join("file"));
        for contents in ["one", "two"] {
            replace_file(&temporary, &target, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), contents);
        }
        write_atomically(&target, b"three").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_atomically(Path::new("/"), b"").is_err());
        let nowhere = folder.path().join("no/folder");
        assert!(replace_file(&temporary, &nowhere, b"three").is_err());
        assert!(!temporary.exists());
    }
}
