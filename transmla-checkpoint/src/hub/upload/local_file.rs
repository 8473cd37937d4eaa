//! A file to upload: its size, its hashes, and reading it again in parts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::Digest;

use crate::error::CheckpointError;
use crate::hub::names::{BlobId, plain_path};
use crate::hub::observer::HubEvent;
use crate::hub::options::HubOptions;

/// Bytes at the beginning of a file that the hub tells its kind by.
const SAMPLE: usize = 512;

/// A file to upload, as it was when it was hashed.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// Its name in the repository.
    pub name: String,
    path: PathBuf,
    pub size: u64,
    /// Its first bytes.
    pub sample: Vec<u8>,
    /// What it goes by if it is stored as a large file.
    pub sha256: String,
    /// What it goes by if it is stored by git.
    pub git_sha1: String,
}

impl LocalFile {
    /// Reads a file of a folder once.
    pub fn read(folder: &Path, name: &str, options: &HubOptions) -> Result<Self, CheckpointError> {
        let relative = plain_path(name).ok_or_else(|| CheckpointError::File {
            path: folder.join(name),
            problem: "no file of a repository has such a name".into(),
        })?;
        let path = folder.join(relative);
        let failed = |error| CheckpointError::io("read", &path, error);
        let data = fs::metadata(&path).map_err(failed)?;
        if !data.is_file() {
            let problem = "it is not a regular file".into();
            return Err(CheckpointError::File { path, problem });
        }
        options.tell(&HubEvent::Reading {
            file: name,
            bytes: data.len(),
        });
        let mut file = File::open(&path).map_err(failed)?;
        let (mut large, mut git) = (Sha256::new(), Sha1::new_with_prefix(format!("blob {}\0", data.len())));
        let (mut size, mut sample, mut buffer) = (0, Vec::new(), vec![0; 1 << 20]);
        loop {
            let count = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(failed)?,
            };
            let read = &buffer[..count];
            if count == 0 {
                break;
            }
            sample.extend_from_slice(&read[..count.min(SAMPLE - sample.len())]);
            large.update(read);
            git.update(read);
            size += count as u64;
            options.tell(&HubEvent::Progress { position: size });
        }
        options.tell(&HubEvent::Finished { file: name });
        if size != data.len() {
            let problem = format!("it had {} bytes, and {size} when it was read", data.len());
            return Err(CheckpointError::Changed { path, problem });
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name: name.to_owned(),
            path,
            size,
            sample,
            sha256: hex(&large.finalize()),
            git_sha1: hex(&git.finalize()),
        })
    }

    /// Whether this is what a repository has under a hash.
    pub fn is(&self, blob: &BlobId) -> bool {
        match blob {
            BlobId::Sha256(hash) => *hash == self.sha256,
            BlobId::GitSha1(hash) => *hash == self.git_sha1,
        }
    }

    /// So many bytes from a place on.
    pub fn part(&self, from: u64, length: u64) -> io::Result<Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(from))?;
        Ok(file.take(length))
    }

    /// All of it.
    pub fn contents(&self) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.part(0, self.size)?.read_to_end(&mut contents)?;
        Ok(contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_hashes_that_it_goes_by() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "hello\n").unwrap();
        let file = LocalFile::read(folder.path(), "file", &HubOptions::default()).unwrap();
        // `git hash-object`, `sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let large = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(file.is(&BlobId::parse(git).unwrap()) && file.is(&BlobId::parse(large).unwrap()));
        assert!(!file.is(&BlobId::parse(&"0".repeat(40)).unwrap()));
        assert_eq!((file.size, file.sample.as_slice()), (6, &b"hello\n"[..]));
        let mut middle = String::new();
        file.part(1, 3).unwrap().read_to_string(&mut middle).unwrap();
        assert_eq!(middle, "ell");
        for name in ["../file", "/etc/hostname", "nothing", "."] {
            assert!(
                LocalFile::read(folder.path(), name, &HubOptions::default()).is_err(),
                "{name}"
            );
        }
    }
}
