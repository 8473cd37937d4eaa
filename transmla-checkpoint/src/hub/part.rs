//! What has come of one file: written as it comes, and no more than was announced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use super::client::Failure;

/// Largest file that is fetched: twenty times what the hub takes.
pub(super) const LARGEST: u64 = 1 << 40;

/// Why a body was not copied to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
    TooLong,
}

/// Copies a body behind the first `position` bytes, which then says how many there are.
///
/// At most as much as was announced is ever written.
pub(super) fn copy(
    mut body: impl Read,
    file: &mut impl Write,
    size: Option<u64>,
    position: &mut u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Stopped> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Stopped::Reading(error)),
        };
        let end = position.saturating_add(count as u64);
        if end > size.unwrap_or(LARGEST) {
            return Err(Stopped::TooLong);
        }
        file.write_all(&buffer[..count]).map_err(Stopped::Writing)?;
        *position = end;
        progress(end);
    }
}

/// Opens what has come of a file, without following a link.
pub(super) fn open_part(part: &Path) -> io::Result<File> {
    match fs::symlink_metadata(part) {
        Ok(found) if !found.is_file() => fs::remove_file(part)?,
        _ => {}
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(part)
}

/// How much of a file has come; none if it is more than there is.
pub(super) fn part_length(part: &Path, size: Option<u64>) -> io::Result<u64> {
    match fs::symlink_metadata(part) {
        Ok(found) if found.is_file() && size.is_none_or(|size| found.len() <= size) => Ok(found.len()),
        Ok(_) => fs::remove_file(part).map(|()| 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether there is a file of a size, which may not be known.
pub(super) fn is_of_size(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && size.is_none_or(|size| found.len() == size))
}

/// The failure of a file of the cache that cannot be written.
pub(super) fn local(path: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!("cannot write {}: {}", path.display(), advice(error)))
}

/// An error with what to do about it.
pub(super) fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!(
                "{error}; free some space, or set HF_HOME to a folder with more: what has come is kept and continued"
            )
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; set HF_HOME to a folder that you may write to")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            match count {
                0 => Err(io::ErrorKind::StorageFull.into()),
                count => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_one() {
        let stopped = copy(&[0; 100][..], &mut Disk(60), Some(100), &mut 0, &mut |_| {}).unwrap_err();
        let Stopped::Writing(error) = stopped else {
            panic!("{stopped:?}");
        };
        let failure = local(Path::new("/hub/part"), &error);
        assert!(!failure.may_pass());
        let text = failure.explain("main", false);
        for words in ["/hub/part", "free some space", "HF_HOME", "kept"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn no_more_is_written_than_was_announced() {
        let mut written = Vec::new();
        let stopped = copy(io::repeat(7), &mut written, Some(1 << 20), &mut 0, &mut |_| {});
        assert!(matches!(stopped, Err(Stopped::TooLong)));
        assert!(written.len() <= 1 << 20);
        let mut positions = Vec::new();
        let mut end = 5;
        copy(&[1, 2, 3][..], &mut written, Some(8), &mut end, &mut |at| {
            positions.push(at)
        })
        .unwrap();
        assert_eq!((end, positions), (8, vec![8]));
    }

    #[test]
    fn a_part_that_cannot_be_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        assert_eq!(part_length(&part, Some(3)).unwrap(), 0);
        fs::write(&part, "1234").unwrap();
        assert_eq!(
            (part_length(&part, None).unwrap(), part_length(&part, Some(4)).unwrap()),
            (4, 4)
        );
        assert_eq!(part_length(&part, Some(3)).unwrap(), 0);
        assert!(!part.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let (part, other) = (folder.path().join("part"), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &part).unwrap();
        assert_eq!(part_length(&part, Some(100)).unwrap(), 0);
        std::os::unix::fs::symlink(&other, &part).unwrap();
        open_part(&part).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&part).unwrap(), "new");
    }
}
