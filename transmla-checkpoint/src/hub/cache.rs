//! The cache folder, laid out as the hub's Python client lays it out, so that both share one.
//!
//! ```text
//! .locks/models--owner--name/HASH.lock    held while a blob is fetched
//! models--owner--name/
//!   blobs/HASH                            contents by their hash
//!   blobs/HASH.incomplete                 what has come of them so far
//!   refs/main                             the commit of a branch, without a line's end
//!   snapshots/COMMIT/config.json          a relative link to ../../blobs/HASH
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::names::{BlobId, Commit, plain_path};
use crate::checkpoint::atomic::replace_file_by;
use crate::checkpoint::lock::is_at;
use crate::checkpoint::regular::read_regular_text;
use crate::error::CheckpointError;
use crate::repository::RepoKind;

/// Maximum size in bytes of the file of a branch, which holds a commit of forty.
const LARGEST_REF: u64 = 1 << 10;

/// Between two attempts to get a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Times that a lock is taken anew whose file was replaced.
const REPLACED: usize = 100;

/// What backup programs know a cache by.
const CACHE_TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of the Hugging Face hub.\n",
);

/// One repository's part of a cache.
#[derive(Debug)]
pub(super) struct RepoCache {
    cache: PathBuf,
    name: String,
    root: PathBuf,
}

impl RepoCache {
    pub fn new(cache: &Path, kind: RepoKind, id: &str) -> Self {
        let name = format!("{}--{}", kind.plural(), id.replace('/', "--"));
        Self {
            cache: cache.to_path_buf(),
            root: cache.join(&name),
            name,
        }
    }

    /// The folder of a commit.
    pub fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.as_str())
    }

    /// Where contents of this hash are.
    pub fn blob(&self, id: &BlobId) -> PathBuf {
        self.root.join("blobs").join(id.as_str())
    }

    /// Where contents of this hash are while they come.
    pub fn part(&self, id: &BlobId) -> PathBuf {
        self.root.join("blobs").join(format!("{id}.incomplete"))
    }

    /// The snapshot of a branch, tag or commit, if there is one.
    pub fn cached(&self, revision: &str) -> Option<PathBuf> {
        snapshot_in(&self.root, revision)
    }

    /// Makes the folders that every download needs.
    pub fn create(&self) -> io::Result<()> {
        fs::create_dir_all(self.root.join("blobs"))?;
        fs::create_dir_all(self.cache.join(".locks").join(&self.name))?;
        // Others do without it, and it may be there already.
        if let Ok(mut tag) = File::create_new(self.cache.join(CACHE_TAG.0)) {
            let _ = io::Write::write_all(&mut tag, CACHE_TAG.1.as_bytes());
        }
        Ok(())
    }

    /// Enters the commit of a branch, unless it is there: others may share the cache and nobody else may write to it.
    pub fn point(&self, revision: &str, commit: &Commit) -> io::Result<()> {
        let Some(name) = plain_path(revision).filter(|_| revision != commit.as_str()) else {
            return Ok(());
        };
        let path = self.root.join("refs").join(name);
        if read_regular_text(&path, LARGEST_REF).is_ok_and(|text| text == commit.as_str()) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        // Beside the branches a temporary file would be taken for one of them.
        let temporary = self.root.join(format!(".ref.{}.tmp", std::process::id()));
        replace_file_by(&temporary, &path, commit.as_str().as_bytes())
    }

    /// Waits until no other process fetches these contents; they are locked until the file is dropped.
    ///
    /// `waiting` is told once if there is anything to wait for.
    pub fn lock(&self, id: &BlobId, waiting: &mut dyn FnMut()) -> io::Result<File> {
        let path = self.cache.join(".locks").join(&self.name).join(format!("{id}.lock"));
        let (mut told, mut replaced) = (false, 0);
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            match file.try_lock() {
                // Who had it before may have removed it, and a third process may hold a new one of that name. One that stays
                // another file is a link, which is as good a lock.
                Ok(()) if is_at(&file, &path) || replaced == REPLACED => return Ok(file),
                Ok(()) => {
                    replaced += 1;
                    continue;
                }
                Err(fs::TryLockError::WouldBlock) => {}
                // Some network file systems know no locks. Contents are verified, so that it costs a second download.
                Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
            if !told {
                waiting();
                told = true;
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// Makes a file of a snapshot a link to contents that are there; a copy where there are no links.
    pub fn link(&self, commit: &Commit, file: &Path, id: &BlobId) -> io::Result<()> {
        let path = self.snapshot(commit).join(file);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        // snapshots, the commit and the file's folders.
        let up = "../".repeat(1 + file.components().count());
        let target = PathBuf::from(format!("{up}blobs/{id}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match symlink(&target, &path) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(_) if path.is_file() => Ok(()),
            Err(_) => fs::copy(self.blob(id), &path).map(|_| ()),
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn symlink(target: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

fn snapshot_in(root: &Path, revision: &str) -> Option<PathBuf> {
    let name = plain_path(revision)?;
    let commit = read_regular_text(&root.join("refs").join(&name), LARGEST_REF).map(|text| text.trim().to_owned());
    let commit = match commit {
        Ok(commit) => plain_path(&commit).filter(|path| path.components().count() == 1)?,
        Err(_) => name,
    };
    let folder = root.join("snapshots").join(commit);
    folder.is_dir().then_some(folder)
}

/// A folder itself or, of a repository in a hub cache (`models--org--name`), the snapshot that a revision means there; the only
/// one, if no branch says which.
///
/// # Errors
/// [`CheckpointError::MissingFile`] if there are several snapshots and no branch says which.
pub(super) fn snapshot_of(folder: PathBuf, revision: &str) -> Result<PathBuf, CheckpointError> {
    let snapshots = folder.join("snapshots");
    if folder.join("config.json").exists() || !snapshots.is_dir() {
        return Ok(folder);
    }
    if let Some(snapshot) = snapshot_in(&folder, revision) {
        return Ok(snapshot);
    }
    let entries = fs::read_dir(&snapshots).map_err(|e| CheckpointError::io("list", &snapshots, e))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (found, others) => Err(CheckpointError::MissingFile {
            path: snapshots.join(revision),
            hint: format!(
                "the cache has {} snapshots and none for {revision}; give one of the folders in {}",
                others + usize::from(found.is_some()),
                snapshots.display()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_lead_to_snapshots_of_their_repository_alone() {
        let place = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(&place.path().join("hub"), RepoKind::Model, "org/name");
        cache.create().unwrap();
        let commit = Commit::parse(&"ab".repeat(20)).unwrap();
        fs::create_dir_all(cache.snapshot(&commit)).unwrap();
        for revision in ["main", "refs/pr/1"] {
            cache.point(revision, &commit).unwrap();
            assert_eq!(cache.cached(revision), Some(cache.snapshot(&commit)));
        }
        fs::create_dir(place.path().join("secret")).unwrap();
        fs::write(cache.root.join("refs/bad"), "../../../secret").unwrap();
        for revision in ["bad", "../../../secret", "..", "/", ""] {
            assert_eq!(cache.cached(revision), None, "{revision}");
        }
        assert_eq!(
            fs::read_to_string(cache.root.join("refs/main")).unwrap(),
            commit.as_str()
        );
    }
}
