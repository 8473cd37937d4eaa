//! The files of a repository at a revision.

use std::fmt;
use std::io::Read;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::address::encode;
use super::client::{Client, Failure};
use super::names::{BlobId, Commit};
use crate::repository::RepoKind;

/// Maximum size in bytes of a listing; a repository of a hundred thousand files has about 20 MB.
const LARGEST: u64 = 64 << 20;

/// Most files of a repository.
const MOST_FILES: usize = 500_000;

/// What a revision resolves to.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: Commit,
    /// Whether only some may see it, if the hub tells.
    pub private: Option<bool>,
    pub files: Vec<ListedFile>,
}

/// A file as the hub lists it; its name is not checked yet.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub name: String,
    /// Size in bytes, if the hub tells.
    pub size: Option<u64>,
    /// Its hash, if the hub tells.
    pub blob: Option<BlobId>,
}

#[derive(Deserialize)]
struct Raw {
    sha: String,
    private: Option<bool>,
    siblings: Siblings,
}

struct Siblings(Vec<ListedFile>);

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
}

/// Asks for the files of a repository, with their sizes and hashes where the server knows them.
pub(super) fn list(client: &Client<'_>, kind: RepoKind, id: &str, revision: &str) -> Result<Listing, Failure> {
    let (kind, revision) = (kind.plural(), encode(revision, false));
    let plain = client.at(&format!("api/{kind}/{id}/revision/{revision}"));
    let answer = match client.get(&format!("{plain}?blobs=true"), 0) {
        // Of very large repositories a server may know the names alone in time; headers tell the rest.
        Err(Failure::Status(500..=599, _)) => client.get(&plain, 0)?,
        answer => answer?,
    };
    let mut text = Vec::new();
    let read = answer.body.take(LARGEST + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::Network(format!("the listing of its files broke off: {error}")))?;
    if text.len() as u64 > LARGEST {
        let most = LARGEST >> 20;
        return Err(Failure::Refused(format!(
            "the listing of its files is larger than {most} MiB"
        )));
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Listing, Failure> {
    let raw: Raw = serde_json::from_slice(text).map_err(|error| {
        Failure::Refused(format!(
            "the server does not answer as a hub does, with a listing of files ({error}); check HF_ENDPOINT and the network"
        ))
    })?;
    let expected = "expected 40 hexadecimal digits";
    let commit = Commit::parse(&raw.sha).ok_or_else(|| {
        let sent: String = raw.sha.chars().take(100).collect();
        Failure::Refused(format!("the hub names the commit {sent:?}; {expected}"))
    })?;
    Ok(Listing {
        commit,
        private: raw.private,
        files: raw.siblings.0,
    })
}

impl<'de> Deserialize<'de> for Siblings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(SiblingsVisitor)
    }
}

/// Reads so many files and no more.
struct SiblingsVisitor;

impl<'de> Visitor<'de> for SiblingsVisitor {
    type Value = Siblings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Siblings, A::Error> {
        let mut files = Vec::new();
        while let Some(file) = sequence.next_element::<Sibling>()? {
            if files.len() == MOST_FILES {
                return Err(A::Error::custom(format_args!("more than {MOST_FILES} files")));
            }
            let hash = file.lfs.and_then(|large| large.sha256).or(file.blob_id);
            files.push(ListedFile {
                name: file.rfilename,
                size: file.size,
                blob: hash.as_deref().and_then(BlobId::parse),
            });
        }
        Ok(Siblings(files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_hashes_are_taken_where_they_are() {
        let (commit, small, large) = ("a".repeat(40), "b".repeat(40), "c".repeat(64));
        let text = format!(
            r#"{{"id": "org/name", "sha": "{commit}", "siblings": [
                {{"rfilename": "a"}},
                {{"rfilename": "b", "size": 3, "blobId": "{small}"}},
                {{"rfilename": "c", "size": 9223372036854775808, "blobId": "{small}", "lfs": {{"sha256": "{large}", "size": 5}}}}
            ]}}"#
        );
        let listing = parse(text.as_bytes()).unwrap();
        assert_eq!(listing.commit.as_str(), commit);
        let found: Vec<_> = listing
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.size, file.blob.as_ref().map(BlobId::as_str)))
            .collect();
        let expected = [
            ("a", None, None),
            ("b", Some(3), Some(small.as_str())),
            ("c", Some(1 << 63), Some(large.as_str())),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let file = r#"{"rfilename":"a"},"#.repeat(MOST_FILES + 1);
        let text = format!(
            r#"{{"sha": "{}", "siblings": [{}]}}"#,
            "a".repeat(40),
            file.trim_end_matches(',')
        );
        let Err(Failure::Refused(problem)) = parse(text.as_bytes()) else {
            panic!("it was taken");
        };
        assert!(problem.contains("more than 500000 files"), "{problem}");
    }
}
