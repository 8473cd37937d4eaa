//! What a server may call things before they become paths.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A commit: 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit(String);

impl Commit {
    pub fn parse(text: &str) -> Option<Self> {
        is_hex(text, 40).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a file's contents hash to, which is also its name in the cache: the SHA-256 of a large file, or git's SHA-1 of
/// a small one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BlobId {
    /// 64 digits.
    Sha256(String),
    /// 40 digits, of `blob LENGTH\0` and the contents.
    GitSha1(String),
}

impl BlobId {
    pub fn parse(text: &str) -> Option<Self> {
        match text.len() {
            64 if is_hex(text, 64) => Some(Self::Sha256(text.to_owned())),
            40 if is_hex(text, 40) => Some(Self::GitSha1(text.to_owned())),
            _ => None,
        }
    }

    /// From an `ETag`, strong or weak.
    pub fn from_etag(header: &str) -> Option<Self> {
        let text = header.trim();
        let text = text.strip_prefix("W/").unwrap_or(text);
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        Self::parse(quoted.unwrap_or(text))
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitSha1(text) => text,
        }
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name with folders as a relative path that leads nowhere else; `None` if it is none.
///
/// For files as a server lists them, and for revisions, which name files of the cache too.
pub(super) fn plain_path(name: &str) -> Option<PathBuf> {
    let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= 255;
    if name.len() > 1024 || name.contains('\\') || name.chars().any(char::is_control) || !name.split('/').all(part) {
        return None;
    }
    let path = Path::new(name);
    // Drives and the like, where there are such things.
    let normal = path.components().all(|part| matches!(part, Component::Normal(_)));
    normal.then(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_and_tags_are_hashes_or_refused() {
        let (sha1, sha256) = ("0123456789abcdef0123".repeat(2), "0123456789abcdef".repeat(4));
        assert_eq!(Commit::parse(&sha1).unwrap().as_str(), sha1);
        for text in ["", "main", "../../..", &sha1[1..], &sha1.to_uppercase(), &sha256] {
            assert_eq!(Commit::parse(text), None, "{text}");
        }
        let tag = |text: &str| BlobId::from_etag(text).map(|id| id.to_string());
        for form in ["X", "\"X\"", "W/\"X\"", " \"X\" "] {
            assert_eq!(tag(&form.replace('X', &sha1)).as_deref(), Some(sha1.as_str()));
            assert_eq!(tag(&form.replace('X', &sha256)).as_deref(), Some(sha256.as_str()));
        }
        let long = "a".repeat(4096);
        for text in [
            "",
            "\"\"",
            "\"/home/u/.bashrc\"",
            "../../x",
            "\"d41d8cd98f00b204e9800998ecf8427e\"",
            &long,
        ] {
            assert_eq!(tag(text), None, "{text}");
        }
        assert_eq!(tag(&format!("\"{sha1}-gzip\"")), None);
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["a", "a.b/c d", "refs/pr/1", "…", "a:b"] {
            assert!(plain_path(name).is_some() || cfg!(windows), "{name}");
        }
        for name in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/../b",
            "./a",
            "a\\b",
            "a\nb",
            "a\u{1b}[2J",
            "\0",
        ] {
            assert_eq!(plain_path(name), None, "{name:?}");
        }
        assert_eq!(plain_path(&"a".repeat(256)), None);
    }
}
