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

/// A local folder with the files of a model: the path itself, or the hub's snapshot.
///
/// Of a hub model the configuration, tokenizer and safetensors files are fetched.
///
/// # Errors
/// [`CoreError::Hub`] if the repository, revision or network cannot be reached, or, offline, the cache has no copy.
pub fn model_folder(model: &str, revision: &str, options: &HubOptions) -> Result<PathBuf, CoreError> {
    if is_path(model) {
        let path = PathBuf::from(model);
        if path.is_dir() {
            return Ok(path);
        }
        return Err(CoreError::MissingFile {
            path,
            hint: "no such model folder (a hub id has the form owner/name)".into(),
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
    use std::path::PathBuf;

    use hf_hub::api::sync::ApiBuilder;
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
        let repo_type = match kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        let mut builder = ApiBuilder::from_cache(cache.clone()).with_progress(options.progress);
        if let Some(token) = &options.token {
            builder = builder.with_token(Some(token.clone()));
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|e| fail(e.to_string()))?;
        let repo = api.repo(Repo::with_revision(id.to_owned(), repo_type, revision.to_owned()));
        let listing = match repo.info() {
            Ok(info) => info,
            // No network, but a copy is here: use it, as the Python client does.
            Err(error) => {
                return cached(&cache, kind, id, revision).ok_or_else(|| {
                    fail(format!(
                        "{error}; check the id, the network, and HF_TOKEN for gated models"
                    ))
                });
            }
        };
        let mut folder = None;
        for file in listing.siblings.iter().map(|s| s.rfilename.as_str()).filter(|f| wanted(f)) {
            let path = repo.get(file).map_err(|e| fail(format!("{file}: {e}")))?;
            let depth = file.matches('/').count() + 1;
            folder = path.ancestors().nth(depth).map(PathBuf::from);
        }
        folder.ok_or_else(|| fail("it has none of the files that are needed".into()))
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
        assert!(error.contains("org/name") && error.contains("HF_HUB_OFFLINE"), "{error}");

        let root = cache.path().join("models--org--name");
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::create_dir_all(root.join("snapshots/abc123")).unwrap();
        std::fs::write(root.join("refs/main"), "abc123\n").unwrap();
        let folder = model_folder("org/name", "main", &options).unwrap();
        assert_eq!(folder, root.join("snapshots/abc123"));
        assert_eq!(model_folder("org/name", "abc123", &options).unwrap(), folder);
    }
}
