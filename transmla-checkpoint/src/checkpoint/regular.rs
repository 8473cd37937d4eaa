//! Reading small files whole, whatever stands under their name.

use std::fmt;
use std::fs::{self, File};
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use crate::error::CheckpointError;

/// Reads a regular file of bounded size; anything else that has a name (a device, a pipe) would never end or never begin.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger than `most` bytes.
pub fn read_regular(path: &Path, most: u64) -> Result<Vec<u8>, CheckpointError> {
    let failed = |error| CheckpointError::io("read", path, error);
    let refuse = |problem| CheckpointError::File {
        path: path.to_path_buf(),
        problem,
    };
    // Before it is opened: opening a pipe waits for a writer.
    let data = fs::metadata(path).map_err(failed)?;
    check_regular(&data, most).map_err(|problem| refuse(problem.to_string()))?;
    let mut contents = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(most.saturating_add(1))
        .read_to_end(&mut contents)
        .map_err(failed)?;
    match contents.len() as u64 > most {
        true => Err(refuse(NotRegular::Larger(most).to_string())),
        false => Ok(contents),
    }
}

/// As [`read_regular`], a text in UTF-8.
///
/// # Errors
/// As [`read_regular`]; or it is not UTF-8.
pub fn read_regular_text(path: &Path, most: u64) -> Result<String, CheckpointError> {
    String::from_utf8(read_regular(path, most)?).map_err(|_| {
        let error = Error::new(ErrorKind::InvalidData, "it is not text in UTF-8");
        CheckpointError::io("read", path, error)
    })
}

/// Whether something that is no folder goes by this name; if it is no file either, reading it says so.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| !data.is_dir())
}

/// Why a file is not read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotRegular {
    /// A device, a pipe, a folder.
    OtherKind,
    /// It is larger than so many bytes.
    Larger(u64),
}

impl fmt::Display for NotRegular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OtherKind => f.write_str("it is not a regular file"),
            Self::Larger(most) if most >> 20 == 0 => write!(f, "it is larger than {most} bytes"),
            Self::Larger(most) => write!(f, "it is larger than {} MiB", most >> 20),
        }
    }
}

/// Checks by what the file system says of a file that it is a regular one of at most `most` bytes.
pub(super) fn check_regular(data: &fs::Metadata, most: u64) -> Result<(), NotRegular> {
    match (data.is_file(), data.len() > most) {
        (false, _) => Err(NotRegular::OtherKind),
        (true, true) => Err(NotRegular::Larger(most)),
        (true, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_utf8_and_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "né").unwrap();
        assert_eq!(read_regular_text(&path, 3).unwrap(), "né");
        let error = read_regular_text(&path, 2).unwrap_err().to_string();
        assert!(
            error.contains("file") && error.contains("larger than 2 bytes"),
            "{error}"
        );
        fs::write(&path, b"\xff\xfe").unwrap();
        let error = read_regular_text(&path, 3).unwrap_err().to_string();
        assert!(error.contains("file") && error.contains("UTF-8"), "{error}");
        assert!(is_there(&path) && !is_there(folder.path()) && !is_there(&folder.path().join("other")));
    }
}
