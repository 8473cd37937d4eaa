//! Files that are replaced as a whole: other processes see what was there before or what is new, never a part of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

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
        let nowhere = folder.path().join("no/folder");
        assert!(replace_file(&temporary, &nowhere, b"three").is_err());
        assert!(!temporary.exists());
    }
}
