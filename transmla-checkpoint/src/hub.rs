//! Models and files from folders or from the Hugging Face hub.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `options` | how the hub is reached: cache, token, timeouts |
//! | `observer` | what a caller is told while files are fetched |
//! | `names` | what a server may call things before they become paths |
//! | `cache` | the cache folder, laid out as the hub's Python client lays it out |
//! | `client`, `address` | requests: redirects, token, timeouts, repetitions |
//! | `reach` | whether the hub answers |
//! | `snapshot`, `listing` | the files of a repository at a revision |
//! | `download`, `part`, `hash` | one file: what has come of it, resumption, verification |
//! | `send`, `upload` | requests that carry something; files of a folder into a repository, in one commit |
//!
//! What a server says is hostile until it is checked: no header becomes a path unless it is a hash, no body becomes a
//! file of the cache unless it has that hash, and the token goes to no host but the hub's own.

#[cfg(feature = "hub")]
mod address;
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod hash;
#[cfg(feature = "hub")]
mod listing;
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
mod names;
mod observer;
mod options;
#[cfg(feature = "hub")]
mod part;
#[cfg(feature = "hub")]
mod reach;
#[cfg(feature = "hub")]
mod send;
#[cfg(feature = "hub")]
mod snapshot;
#[cfg(feature = "hub")]
mod upload;

use std::path::{Path, PathBuf};

pub use self::observer::{HubEvent, HubObserver};
pub use self::options::{HubOptions, HubTimeouts};
#[cfg(feature = "hub")]
pub use self::reach::reach;
#[cfg(feature = "hub")]
pub use self::upload::{Upload, Uploaded, upload};
use crate::checkpoint::companion_names::is_companion;
use crate::error::CheckpointError;
use crate::gguf;
pub use crate::repository::{CachedRepo, RepoKind, cached_repo, is_repo_id};

/// Whether a model argument names a folder rather than a hub id.
///
/// Anything that exists, or that starts with `.`, `/` or `~`, has more than one `/` or ends in `.gguf`, is a path.
pub fn is_path(text: &str) -> bool {
    Path::new(text).exists()
        || text.starts_with(['.', '/', '~'])
        || text.matches('/').count() != 1
        || text.ends_with('/')
        || is_gguf_name(text)
}

fn is_gguf_name(text: &str) -> bool {
    text.to_ascii_lowercase().ends_with(".gguf")
}

/// A local folder with the files of a model, or its GGUF file: the path itself, the snapshot in a cached repository that the path names, or
/// the hub's snapshot.
///
/// Of a hub model the configuration, the weights in safetensors and what goes with them ([`is_companion`]) are fetched.
/// The folder of a repository in a cache (`models--owner--name`) stands for its snapshot of `revision`.
///
/// # Errors
/// [`CheckpointError::Hub`] if the repository, revision or network cannot be reached, what comes is not what the hub
/// announced, or, offline, the cache has no copy; [`CheckpointError::MissingFile`] if a path names nothing, or a cached
/// repository without the revision; [`CheckpointError::File`] if it names a file that is no GGUF file.
pub fn model_folder(model: &str, revision: &str, options: &HubOptions) -> Result<PathBuf, CheckpointError> {
    if is_path(model) {
        let path = PathBuf::from(model);
        if path.is_dir() {
            return cache::snapshot_of(path, revision);
        }
        if path.is_file() && gguf::locate(&path)?.is_some() {
            return Ok(path);
        }
        return Err(match path.is_file() {
            true => CheckpointError::File {
                path,
                problem: "is a file; a model is the folder that it is in, or a GGUF file".into(),
            },
            false => CheckpointError::MissingFile {
                path,
                hint: match is_gguf_name(model) {
                    true => "there is no such GGUF file; download it first".into(),
                    false => "no such model folder (a hub id has the form owner/name)".into(),
                },
            },
        });
    }
    snapshot(RepoKind::Model, model, revision, options, &is_model_file)
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
) -> Result<PathBuf, CheckpointError> {
    snapshot(RepoKind::Dataset, repo, revision, options, wanted)
}

/// What is fetched of a model: what it is read from, and what a converted model takes along.
fn is_model_file(file: &str) -> bool {
    let flat = !file.contains('/');
    is_companion(file) || flat && (file.ends_with(".safetensors") || file.ends_with(".json"))
}

#[cfg(feature = "hub")]
use self::snapshot::snapshot;

#[cfg(not(feature = "hub"))]
fn snapshot(
    _: RepoKind,
    id: &str,
    _: &str,
    _: &HubOptions,
    _: &dyn Fn(&str) -> bool,
) -> Result<PathBuf, CheckpointError> {
    Err(CheckpointError::Hub {
        repo: id.to_owned(),
        problem: "this build has no hub access (feature `hub`); pass a folder".into(),
    })
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
        assert!(is_path("a/model-Q4_K_M.gguf"));
        assert!(!is_path("meta-llama/Llama-3.2-1B"));
    }

    #[test]
    fn a_model_is_its_configuration_weights_and_companions() {
        for file in [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "tokenizer.model",
            "merges.txt",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
            "README.md",
            "LICENSE",
            "USE_POLICY.md",
        ] {
            assert!(is_model_file(file), "{file}");
        }
        for file in [
            "pytorch_model.bin",
            "onnx/model.safetensors",
            "original/params.json",
            "model.gguf",
            "a/LICENSE",
        ] {
            assert!(!is_model_file(file), "{file}");
        }
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
}
