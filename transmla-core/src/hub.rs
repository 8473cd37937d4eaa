//! Models and files from folders or from the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::CoreError;

/// How the hub is reached; the caller reads the environment (`HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`).
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// The cache folder, the one with `models--org--name` folders in it; nothing for the client's default.
    pub cache: Option<PathBuf>,
    /// Access token for gated repositories.
    pub token: Option<String>,
    /// Never use the network; only what is in the cache.
    pub offline: bool,
    /// Another server than the public hub.
    pub endpoint: Option<String>,
    /// Show download progress on the terminal.
    pub progress: bool,
}

/// Kind of a hub repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// Model weights.
    Model,
    /// A dataset.
    Dataset,
}

/// Whether a model argument names a folder rather than a hub id.
///
/// Anything that exists, or that starts with `.`, `/` or `~`, or has more than one `/`, is a path.
pub fn is_path(text: &str) -> bool {
    Path::new(text).exists()
        || text.starts_with(['.', '/', '~'])
        || text.matches('/').count() != 1
        || text.ends_with('/')
}

/// A local folder with the files of a model: the path itself, the snapshot in a cached repository that the path names, or
/// the hub's snapshot.
///
/// Of a hub model the configuration, tokenizer and safetensors files are fetched.
///
/// # Errors
/// [`CoreError::Hub`] if the repository, revision or network cannot be reached, or, offline, the cache has no copy;
/// [`CoreError::MissingFile`] if a path names no folder, or a cached repository without the revision.
pub fn model_folder(model: &str, revision: &str, options: &HubOptions) -> Result<PathBuf, CoreError> {
    if is_path(model) {
        let path = PathBuf::from(model);
        if path.is_dir() {
            return snapshot_of(path, revision);
        }
        let hint = match path.is_file() {
            true => "it is a file; give the folder that it is in",
            false => "no such model folder (a hub id has the form owner/name)",
        };
        return Err(CoreError::MissingFile {
            path,
            hint: hint.into(),
        });
    }
    remote::snapshot(RepoKind::Model, model, revision, options, &|file| {
        let flat = !file.contains('/');
        flat && (file.ends_with(".safetensors")
            || file.ends_with(".json")
            || file.ends_with(".jinja")
            || file == "tokenizer.model"
            || file.starts_with("LICENSE"))
    })
}

/// A folder itself or, of a repository in a hub cache (`models--org--name`), the snapshot that a revision means there.
///
/// # Errors
/// [`CoreError::MissingFile`] if the cache has several snapshots and no branch says which.
fn snapshot_of(folder: PathBuf, revision: &str) -> Result<PathBuf, CoreError> {
    let snapshots = folder.join("snapshots");
    if folder.join("config.json").exists() || !snapshots.is_dir() {
        return Ok(folder);
    }
    let branch = std::fs::read_to_string(folder.join("refs").join(revision));
    let named = branch.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
    // A commit is one name: nothing in a file leads elsewhere.
    let plain = !named.is_empty() && !named.contains(['/', '\\']) && named != "..";
    let snapshot = snapshots.join(&named);
    if plain && snapshot.is_dir() {
        return Ok(snapshot);
    }
    let entries = std::fs::read_dir(&snapshots).map_err(|e| CoreError::io("list", &snapshots, e))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    match &found[..] {
        [only] => Ok(only.clone()),
        several => Err(CoreError::MissingFile {
            path: snapshot,
            hint: format!(
                "the cache has {} snapshots and none for {revision}; give one of the folders in {}",
                several.len(),
                snapshots.display()
            ),
        }),
    }
}

/// A local folder with those files of a dataset repository that `wanted` accepts.
///
/// # Errors
/// As [`model_folder`].
pub fn dataset_folder(
    repo: &str,
    revision: &str,
    options: &HubOptions,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<PathBuf, CoreError> {
    remote::snapshot(RepoKind::Dataset, repo, revision, options, wanted)
}

#[cfg(feature = "hub")]
mod remote {
    use std::path::{Component, Path, PathBuf};

    use hf_hub::api::RepoInfo;
    use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
    use hf_hub::{Cache, Repo, RepoType};

    use super::{HubOptions, RepoKind};
    use crate::CoreError;

    pub fn snapshot(
        kind: RepoKind,
        id: &str,
        revision: &str,
        options: &HubOptions,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, CoreError> {
        let fail = |problem: String| CoreError::Hub {
            repo: id.to_owned(),
            problem,
        };
        let cache = options.cache.clone().map_or_else(Cache::default, Cache::new);
        if options.offline {
            return cached(&cache, kind, id, revision).ok_or_else(|| {
                fail(format!(
                    "revision {revision} is not in the cache {} and the hub is switched off (HF_HUB_OFFLINE)",
                    cache.path().display()
                ))
            });
        }
        let api = client(&cache, options).map_err(|e| fail(e.to_string()))?;
        let repo_type = match kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        let branch = Repo::with_revision(id.to_owned(), repo_type, revision.to_owned());
        match api.repo(branch.clone()).info() {
            Ok(listing) => {
                let pinned = Repo::with_revision(id.to_owned(), repo_type, listing.sha.clone());
                let folder = download(&api, &cache, &pinned, &listing, wanted).map_err(fail)?;
                // Written only where it changes: the cache may be one that others fill and nobody else may write to.
                if cached(&cache, kind, id, revision).as_ref() != Some(&folder) {
                    let moved = cache.repo(branch).create_ref(&listing.sha);
                    moved.map_err(|e| CoreError::io("write to the cache", cache.path(), e))?;
                }
                Ok(folder)
            }
            // The hub cannot be asked, but a copy is here: use it, as the Python client does.
            Err(error) => cached(&cache, kind, id, revision)
                .ok_or_else(|| fail(explain(&error, revision, options.token.is_some()))),
        }
    }

    fn client(cache: &Cache, options: &HubOptions) -> Result<Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(options.progress);
        if let Some(token) = &options.token {
            builder = builder.with_token(Some(token.clone()));
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        builder.build()
    }

    /// Fetches the wanted files of one commit, those that are not in the cache yet, and returns its folder.
    ///
    /// By commit rather than by branch: when the branch has moved on, what the cache has of the old commit must not be
    /// mixed with new files. The branch's name in the cache is moved afterwards, when all files are there.
    fn download(
        api: &Api,
        cache: &Cache,
        pinned: &Repo,
        listing: &RepoInfo,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, String> {
        let commit = listing.sha.as_str();
        if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("the hub names the commit {commit:?}"));
        }
        let folder = cache.repo(pinned.clone()).pointer_path(commit);
        let remote = api.repo(pinned.clone());
        let mut found = false;
        let files = listing.siblings.iter().map(|sibling| sibling.rfilename.as_str());
        for file in files.filter(|file| wanted(file)) {
            let mut parts = Path::new(file).components();
            if !parts.all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!(
                    "the hub lists the file {file:?}, which lies outside the repository"
                ));
            }
            let local = folder.join(file);
            if !local.is_file() {
                // A link whose blob was removed: the client would not replace it.
                if local.is_symlink() {
                    std::fs::remove_file(&local).map_err(|e| format!("{file}: cannot replace it in the cache: {e}"))?;
                }
                let path = remote.download(file).map_err(|e| format!("{file}: {e}"))?;
                if !path.starts_with(&folder) {
                    return Err(format!("{file}: the hub sent another commit than {commit}"));
                }
            }
            found = true;
        }
        match found {
            true => Ok(folder),
            false => Err("it has none of the files that are needed".into()),
        }
    }

    /// What to do about a hub that does not answer as hoped.
    fn explain(error: &ApiError, revision: &str, has_token: bool) -> String {
        let status = match error {
            ApiError::RequestError(error) => match **error {
                ureq::Error::StatusCode(status) => Some(status),
                _ => None,
            },
            _ => None,
        };
        match status {
            // The hub answers 401 for what does not exist, so as not to say what does.
            Some(401) if !has_token => {
                "it does not exist, or is private or gated: check the id, or set HF_TOKEN (status 401)".into()
            }
            Some(401 | 403) => {
                format!(
                    "HF_TOKEN gives no access to it: accept its licence on the hub, or check the id (status {})",
                    status.unwrap_or_default()
                )
            }
            Some(404) => format!("there is no such repository or revision {revision}: check the id (status 404)"),
            _ => format!("{error}; check the network, or use a local folder"),
        }
    }

    /// The snapshot folder of a revision in a cache laid out as the hub's clients lay it out.
    fn cached(cache: &Cache, kind: RepoKind, id: &str, revision: &str) -> Option<PathBuf> {
        let prefix = match kind {
            RepoKind::Model => "models",
            RepoKind::Dataset => "datasets",
        };
        let root = cache.path().join(format!("{prefix}--{}", id.replace('/', "--")));
        let commit = std::fs::read_to_string(root.join("refs").join(revision))
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| revision.to_owned());
        let folder = root.join("snapshots").join(commit);
        folder.is_dir().then_some(folder)
    }
}

#[cfg(not(feature = "hub"))]
mod remote {
    use std::path::PathBuf;

    use super::{HubOptions, RepoKind};
    use crate::CoreError;

    pub fn snapshot(
        _: RepoKind,
        id: &str,
        _: &str,
        _: &HubOptions,
        _: &dyn Fn(&str) -> bool,
    ) -> Result<PathBuf, CoreError> {
        Err(CoreError::Hub {
            repo: id.to_owned(),
            problem: "this build has no hub access (feature `hub`); pass a folder".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_paths_from_ids() {
        assert!(is_path("./model"));
        assert!(is_path("/abs/model"));
        assert!(is_path("model"));
        assert!(is_path("a/b/c"));
        assert!(!is_path("meta-llama/Llama-3.2-1B"));
    }

    #[test]
    fn the_root_of_a_cached_repository_is_its_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().join("models--org--name");
        let snapshots = root.join("snapshots");
        std::fs::create_dir_all(snapshots.join("abc")).unwrap();
        let find = |revision: &str| model_folder(root.to_str().unwrap(), revision, &HubOptions::default());
        assert_eq!(find("main").unwrap(), snapshots.join("abc"));

        std::fs::create_dir_all(snapshots.join("def")).unwrap();
        let error = find("main").unwrap_err().to_string();
        assert!(error.contains("2 snapshots") && error.contains("main"), "{error}");
        std::fs::create_dir_all(root.join("refs")).unwrap();
        for (revision, commit, found) in [("main", "def\n", "def"), ("v1", "abc", "abc")] {
            std::fs::write(root.join("refs").join(revision), commit).unwrap();
            assert_eq!(find(revision).unwrap(), snapshots.join(found));
        }
        assert_eq!(find("abc").unwrap(), snapshots.join("abc"));
        std::fs::write(root.join("refs/odd"), "../..").unwrap();
        assert!(find("odd").is_err());

        std::fs::write(root.join("config.json"), "{}").unwrap();
        assert_eq!(find("main").unwrap(), root);
    }

    #[cfg(feature = "hub")]
    #[test]
    fn offline_reads_the_cache_and_says_when_it_cannot() {
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions {
            cache: Some(cache.path().to_path_buf()),
            offline: true,
            ..HubOptions::default()
        };
        let error = model_folder("org/name", "main", &options).unwrap_err().to_string();
        assert!(
            error.contains("org/name") && error.contains("HF_HUB_OFFLINE"),
            "{error}"
        );

        let root = cache.path().join("models--org--name");
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("snapshots/abc123")).unwrap();
        std::fs::write(root.join("refs/main"), "abc123\n").unwrap();
        let folder = model_folder("org/name", "main", &options).unwrap();
        assert_eq!(folder, root.join("snapshots/abc123"));
        assert_eq!(model_folder("org/name", "abc123", &options).unwrap(), folder);
    }
}
