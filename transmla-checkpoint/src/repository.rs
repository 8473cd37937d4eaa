//! Repositories of the Hugging Face hub: their kinds and ids, and what a path into a cache says of one.

use std::path::{Component, Path};

/// Kind of a hub repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// Model weights.
    Model,
    /// A dataset.
    Dataset,
}

impl RepoKind {
    /// What its folders in a cache and its listings are called by.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// Whether this is a repository's id: `name` or `owner/name` of letters, digits, `-`, `_` and `.`.
pub fn is_repo_id(id: &str) -> bool {
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=96).contains(&part.len())
            && part.bytes().all(plain)
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    id.split('/').count() <= 2 && id.split('/').all(part) && !id.contains("--") && !id.contains("..")
}

/// A repository of the hub, as a path into a cache tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRepo {
    /// Kind of the repository.
    pub kind: RepoKind,
    /// Its id, `owner/name`.
    pub id: String,
    /// The commit, if the path is that of a snapshot.
    pub commit: Option<String>,
}

/// The repository that a folder belongs to if it is one of a hub cache (`models--owner--name`, or
/// `models--owner--name/snapshots/COMMIT`), by its path alone.
pub fn cached_repo(folder: &Path) -> Option<CachedRepo> {
    let names: Vec<&str> = folder
        .components()
        .filter(|part| !matches!(part, Component::CurDir))
        .map(|part| part.as_os_str().to_str().unwrap_or_default())
        .collect();
    let (name, commit) = match names.as_slice() {
        [.., name, "snapshots", commit] => (name, Some(*commit)),
        [.., name] => (name, None),
        [] => return None,
    };
    let (kind, id) = [RepoKind::Model, RepoKind::Dataset].into_iter().find_map(|kind| {
        let id = name.strip_prefix(kind.plural())?.strip_prefix("--")?;
        Some((kind, id.replacen("--", "/", 1)))
    })?;
    is_repo_id(&id).then(|| CachedRepo {
        kind,
        id,
        commit: commit.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_into_a_cache_tells_the_repository() {
        let repo = |path: &str| cached_repo(Path::new(path)).map(|repo| (repo.id, repo.commit));
        let found = |id: &str, commit: Option<&str>| Some((id.to_owned(), commit.map(str::to_owned)));
        assert_eq!(repo("/u/hub/models--org--name"), found("org/name", None));
        assert_eq!(
            repo("/u/hub/models--org--name/snapshots/abc/"),
            found("org/name", Some("abc"))
        );
        assert_eq!(repo("models--gpt2/snapshots/abc"), found("gpt2", Some("abc")));
        assert_eq!(repo("datasets--org--a-b"), found("org/a-b", None));
        for path in [
            "models/llama",
            "models--",
            "models--a--b--c",
            "/",
            "",
            "spaces--a--b",
            "models--a--b/snapshots",
        ] {
            assert_eq!(repo(path), None, "{path}");
        }
    }

    #[test]
    fn ids_are_those_of_the_hub() {
        for id in ["gpt2", "org/name", "HuggingFaceTB/SmolLM2-135M", "a_b/c.d"] {
            assert!(is_repo_id(id), "{id}");
        }
        for id in [
            "", "a/b/c", "/a", "a/", "../a", "a/..", "a--b/c", "a/b c", "a/b?x", "a/.b", "é/a", "a/b\n",
        ] {
            assert!(!is_repo_id(id), "{id}");
        }
    }
}
