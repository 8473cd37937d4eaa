//! Caches as the hub's clients lay them out: blobs, snapshots that link to them, and branch names.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use transmla_checkpoint::Checkpoint;
use transmla_checkpoint::hub::{HubOptions, dataset_folder, is_path, model_folder};

fn options(cache: &Path) -> HubOptions {
    HubOptions {
        cache: Some(cache.to_path_buf()),
        offline: true,
        ..HubOptions::default()
    }
}

/// A cached copy of a model in the repository: its snapshot `abc` of the branches `main` and `pr/5`.
fn cached_model(cache: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
    let root = cache.join("models--org--stories");
    let snapshot = root.join("snapshots/abc");
    for folder in ["blobs", "refs/pr", "snapshots/abc"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (index, name) in ["config.json", "model.safetensors", "tokenizer.json"]
        .iter()
        .enumerate()
    {
        fs::copy(source.join(name), root.join(format!("blobs/{index}"))).unwrap();
        symlink(format!("../../blobs/{index}"), snapshot.join(name)).unwrap();
    }
    fs::write(root.join("refs/main"), "abc").unwrap();
    fs::write(root.join("refs/pr/5"), "abc\n").unwrap();
    snapshot
}

#[test]
fn a_snapshot_is_found_by_branch_and_by_commit_and_read_through_its_links() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cached_model(cache.path());
    for revision in ["main", "pr/5", "abc"] {
        assert_eq!(
            model_folder("org/stories", revision, &options(cache.path())).unwrap(),
            snapshot
        );
    }
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    checkpoint.values("model.norm.weight", &[64]).unwrap();
}

#[test]
fn what_is_not_there_is_named() {
    let cache = tempfile::tempdir().unwrap();
    cached_model(cache.path());
    for (id, revision) in [("org/stories", "v2"), ("org/others", "main")] {
        let error = model_folder(id, revision, &options(cache.path()))
            .unwrap_err()
            .to_string();
        for part in [id, revision, "HF_HUB_OFFLINE", &cache.path().display().to_string()] {
            assert!(error.contains(part), "{error}");
        }
    }
    // A model is no dataset.
    assert!(dataset_folder("org/stories", "main", &options(cache.path()), &|_| true).is_err());
}

#[test]
fn a_blob_that_is_gone_is_an_error_of_the_model_not_of_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    let snapshot = cached_model(cache.path());
    fs::remove_file(cache.path().join("models--org--stories/blobs/1")).unwrap();
    assert_eq!(
        model_folder("org/stories", "main", &options(cache.path())).unwrap(),
        snapshot
    );
    let error = Checkpoint::open(&snapshot).unwrap_err().to_string();
    assert!(
        error.contains("model.safetensors") && error.contains("download the model again"),
        "{error}"
    );
}

#[test]
fn folders_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(is_path(path));
    assert_eq!(
        model_folder(path, "main", &HubOptions::default()).unwrap(),
        folder.path()
    );
    let missing = folder.path().join("missing");
    let error = model_folder(missing.to_str().unwrap(), "main", &HubOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("missing") && error.contains("owner/name"), "{error}");
}
