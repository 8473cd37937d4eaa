//! Whether contents have the hash that they go by.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::Digest;

use super::names::BlobId;

/// Whether a file, read back from the disk, has this hash.
pub(super) fn matches(path: &Path, id: &BlobId) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let hash = match id {
        BlobId::Sha256(_) => digest(Sha256::new(), &mut file)?,
        BlobId::GitSha1(_) => {
            let length = file.metadata()?.len();
            digest(Sha1::new_with_prefix(format!("blob {length}\0")), &mut file)?
        }
    };
    Ok(hash == id.as_str())
}

fn digest(mut hasher: impl Digest, file: &mut File) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_large_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let check = |contents: &str, id: &str| {
            std::fs::write(&path, contents).unwrap();
            matches(&path, &BlobId::parse(id).unwrap()).unwrap()
        };
        // `git hash-object`, `sha256sum`.
        let empty = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391";
        let hello = "ce013625030ba8dba906f756967f9e9ca394464a";
        let large = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(check("", empty) && check("hello\n", hello) && check("hello\n", large));
        assert!(!check("hellp\n", hello) && !check("hellp\n", large) && !check("hello\n", empty));
    }
}
