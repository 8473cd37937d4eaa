//! Files that are replaced as a whole: other processes see what was there before or what is new, never a part of it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file as a whole, by way of the hidden file `.NAME.partial-PID` beside it; it need not exist.
///
/// A link is replaced itself, and what it leads to is left alone.
///
/// # Errors
/// The path has no file name, the disk is full, or the folder cannot be written to; nothing is left behind then.
pub fn replace_file(target: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(target.file_name().ok_or(io::ErrorKind::InvalidInput)?);
    name.push(format!(".partial-{}", std::process::id()));
    replace_file_by(&target.with_file_name(name), target, contents)
}

/// As [`replace_file`], by way of a given file on the same file system.
pub(crate) fn replace_file_by(temporary: &Path, target: &Path, contents: &[u8]) -> io::Result<()> {
    // A killed process may have left one; nothing is written through a link.
    let _ = fs::remove_file(temporary);
    let mut file = File::create_new(temporary)?;
    let written = file
        .write_all(contents)
        .and_then(|()| file.sync_all())
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
        let target = folder.path().join("file");
        for contents in ["one", "two"] {
            replace_file(&target, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), contents);
        }
        assert!(replace_file(&folder.path().join("no/folder"), b"three").is_err());
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(replace_file(&folder.path().join("folder"), b"three").is_err());
        assert!(replace_file(&folder.path().join(".."), b"three").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_written_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let [other, target, temporary] = ["other", "link", "temporary"].map(|name| folder.path().join(name));
        fs::write(&other, "precious").unwrap();
        for link in [&target, &temporary] {
            std::os::unix::fs::symlink(&other, link).unwrap();
        }
        replace_file_by(&temporary, &target, b"new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(!target.is_symlink() && !temporary.exists());
    }
}
