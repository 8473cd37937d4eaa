//! Where the hidden files of a target lie, and what there is room for.
//!
//! They lie beside the target, so that one rename puts a finished model in its place. A folder that cannot be renamed (a
//! mount point, or a folder whose parent cannot be written to) has them inside.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::CheckpointError;

/// A folder that newly created file systems have in their root.
const LOST_AND_FOUND: &str = "lost+found";

/// The place of a target.
#[derive(Debug, Clone)]
pub struct Place {
    target: PathBuf,
    name: OsString,
    folder: PathBuf,
}

impl Place {
    /// The place of a target, which need not exist.
    ///
    /// Links and dots in its path are resolved once: a path such as `m/../m` would lead nowhere while `m` is moved aside.
    ///
    /// # Errors
    /// The target has no file name.
    pub fn of(target: &Path) -> Result<Self, CheckpointError> {
        let name = target
            .file_name()
            .ok_or_else(|| CheckpointError::io("create", target, io::ErrorKind::InvalidInput.into()))?
            .to_os_string();
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let parent = real_path(&parent);
        let target = parent.join(&name);
        let is_folder = fs::symlink_metadata(&target).is_ok_and(|kind| kind.is_dir());
        let stays = is_folder && (is_mount_point(&target, &parent) || !may_write(&parent));
        Ok(Self {
            folder: if stays { target.clone() } else { parent },
            target,
            name,
        })
    }

    /// The target, by a path whose folders have no links and dots; the target itself may be a link.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the hidden files lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether that is the target itself, because the target cannot be moved.
    pub fn is_inside(&self) -> bool {
        self.folder == self.target
    }

    /// `.NAME.SUFFIX` in it.
    pub fn hidden(&self, suffix: &str) -> PathBuf {
        let mut name = self.prefix();
        name.push(suffix);
        self.folder.join(name)
    }

    /// `.NAME.`
    pub(super) fn prefix(&self) -> OsString {
        let mut prefix = OsString::from(".");
        prefix.push(&self.name);
        prefix.push(".");
        prefix
    }

    /// Names of the entries of the target, without its hidden files and those of the file system; empty if the target does not
    /// exist.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn contents(&self) -> Result<Vec<OsString>, CheckpointError> {
        let entries = match fs::read_dir(&self.target) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CheckpointError::io("list", &self.target, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|e| CheckpointError::io("list", &self.target, e))?
                .file_name();
            if !(self.is_inside() && self.is_aside(&name)) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn is_aside(&self, name: &OsStr) -> bool {
        let rest = name
            .as_encoded_bytes()
            .strip_prefix(self.prefix().as_encoded_bytes())
            .unwrap_or_default();
        name == LOST_AND_FOUND || rest.starts_with(b"partial-") || rest == b"layers" || rest == b"layers.lock"
    }

    /// Free space in bytes, if the system tells.
    pub fn free_bytes(&self) -> Option<u64> {
        let exists = |path: &&Path| path.exists();
        let here = Path::new(".");
        let named = self.folder.ancestors().filter(|path| !path.as_os_str().is_empty());
        free_bytes(named.chain([here]).find(exists)?)
    }
}

/// A path that need not exist, absolute and without links and dots.
///
/// Existing parts are resolved; the rest is taken literally.
pub fn real_path(path: &Path) -> PathBuf {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut found = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                found.pop();
            }
            Component::CurDir => {}
            other => found.push(other),
        }
        // At once: a name behind a link goes up from the link's end.
        if let Ok(end) = found.canonicalize() {
            found = end;
        }
    }
    found
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    // Some network and virtual file systems do not say how large they are.
    (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn may_write(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> bool {
    true
}

#[cfg(unix)]
fn is_mount_point(folder: &Path, parent: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|data| data.dev()).ok();
    // A part of a file system may be mounted at another place of it: the device is the same then.
    device(folder) != device(parent) || is_listed_as_mounted(folder)
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path, _: &Path) -> bool {
    false
}

/// As Linux lists what is mounted: the fifth field is the place, spaces and the like as octal numbers.
#[cfg(unix)]
fn is_listed_as_mounted(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let (Ok(folder), Ok(list)) = (folder.canonicalize(), fs::read("/proc/self/mountinfo")) else {
        return false;
    };
    let escaped: Vec<u8> = folder
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            other => vec![*other],
        })
        .collect();
    list.split(|byte| *byte == b'\n')
        .any(|line| line.split(|byte| *byte == b' ').nth(4) == Some(&escaped[..]))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn mount_points_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        for (path, inside) in [(Path::new("/proc"), true), (folder.path(), false)] {
            assert_eq!(Place::of(path).unwrap().is_inside(), inside, "{}", path.display());
        }
        assert!(Place::of(Path::new("/")).is_err());
        let place = Place::of(&folder.path().join("new")).unwrap();
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(place.folder(), real);
        assert_eq!(place.hidden("layers"), real.join(".new.layers"));
        assert!(place.free_bytes().is_some_and(|bytes| bytes > 0));
        assert!(place.contents().unwrap().is_empty());
    }

    #[test]
    fn a_folder_has_one_name() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir_all(real.join("m/sub")).unwrap();
        std::os::unix::fs::symlink(real.join("m/sub"), real.join("link")).unwrap();
        for path in [
            "m",
            "m/",
            "./m/.",
            "m/../m",
            "new/../m",
            "link/../../m",
            "m/sub/../../m",
        ] {
            assert_eq!(Place::of(&real.join(path)).unwrap().target(), real.join("m"), "{path}");
        }
        let behind = Place::of(&real.join("link/new")).unwrap();
        assert_eq!(behind.target(), real.join("m/sub/new"));
        // A link is a name of its own.
        assert_eq!(Place::of(&real.join("link")).unwrap().target(), real.join("link"));
    }

    #[test]
    fn hidden_files_are_not_counted_where_they_are_inside() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("m");
        fs::create_dir(&target).unwrap();
        for name in [
            ".m.partial-7",
            ".m.layers",
            ".m.layers.lock",
            "lost+found",
            ".m.other",
            "a",
        ] {
            fs::write(target.join(name), "").unwrap();
        }
        let beside = Place::of(&target).unwrap();
        assert_eq!(beside.contents().unwrap().len(), 6);
        let inside = Place {
            folder: beside.target.clone(),
            ..beside
        };
        assert_eq!(inside.contents().unwrap(), [".m.other", "a"]);
    }
}
