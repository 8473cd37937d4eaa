//! The cache on the disk: what Python's `huggingface_hub` reads and writes.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use transmla_checkpoint::hub::{HubOptions, dataset_folder, model_folder};

use crate::server::{Server, commit, hash};

/// Everything below a folder, sorted: folders with a slash at their end, links with their target.
fn tree(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, prefix: &str, out: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_symlink() {
                out.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if path.is_dir() {
                out.push(format!("{name}/"));
                walk(&path, &format!("{name}/"), out);
            } else {
                out.push(name);
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, "", &mut out);
    out.sort();
    out
}

/// As `huggingface_hub` 2.4.0 leaves the same files after `hf_hub_download` of each, but for its locks' own files.
fn recorded(prefix: &str, sha: &str, files: &[(&str, &str, &str)]) -> Vec<String> {
    let mut lines = vec![
        ".locks/".to_owned(),
        format!(".locks/{prefix}/"),
        "CACHEDIR.TAG".into(),
        format!("{prefix}/"),
        format!("{prefix}/blobs/"),
        format!("{prefix}/refs/"),
        format!("{prefix}/refs/main"),
        format!("{prefix}/snapshots/"),
        format!("{prefix}/snapshots/{sha}/"),
    ];
    for (name, up, hash) in files {
        lines.push(format!(".locks/{prefix}/{hash}.lock"));
        lines.push(format!("{prefix}/blobs/{hash}"));
        lines.push(format!("{prefix}/snapshots/{sha}/{name} -> {up}blobs/{hash}"));
    }
    lines.sort();
    lines
}

#[test]
fn a_model_is_laid_out_as_python_does_it() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let sha = commit(1);
    server.put(
        "models/org/tiny",
        &sha,
        &[("config.json", b"{}"), ("model.safetensors", b"weights")],
    );
    model_folder("org/tiny", "main", &server.options(cache.path())).unwrap();
    let config = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
    let weights = hash("model.safetensors", b"weights");
    let expected = recorded(
        "models--org--tiny",
        &sha,
        &[
            ("config.json", "../../", config),
            ("model.safetensors", "../../", &weights),
        ],
    );
    assert_eq!(tree(cache.path()), expected);
    let reference = cache.path().join("models--org--tiny/refs/main");
    assert_eq!(
        fs::read_to_string(reference).unwrap(),
        sha,
        "no line's end: Python takes the text as it is"
    );
    let tag = fs::read_to_string(cache.path().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
}

#[test]
fn files_in_folders_and_contents_that_are_the_same() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let sha = commit(1);
    let files: &[(&str, &[u8])] = &[("data/en/a.txt", b"same"), ("data/b.txt", b"same")];
    server.put("datasets/org/texts", &sha, files);
    dataset_folder("org/texts", "main", &server.options(cache.path()), &|_| true).unwrap();
    assert_eq!(server.take_downloads().len(), 1, "one blob for both");
    let blob = hash("a.txt", b"same");
    let found = tree(cache.path());
    for line in [
        format!("datasets--org--texts/snapshots/{sha}/data/en/a.txt -> ../../../../blobs/{blob}"),
        format!("datasets--org--texts/snapshots/{sha}/data/b.txt -> ../../../blobs/{blob}"),
    ] {
        assert!(found.contains(&line), "{line} is not in {found:#?}");
    }
}

#[test]
fn what_python_left_is_used_and_completed() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let sha = commit(1);
    let files: &[(&str, &[u8])] = &[
        ("config.json", b"{}"),
        ("LICENSE", b"free"),
        ("model.safetensors", b"weights"),
    ];
    server.put("models/org/tiny", &sha, files);
    // A blob of its own, one in the store that repositories share, what it knows not to exist, what it left of a download.
    let root = cache.path().join("models--org--tiny");
    let snapshot = root.join("snapshots").join(&sha);
    let (config, weights) = (hash("config.json", b"{}"), hash("model.safetensors", b"weights"));
    let xet = "ab".repeat(32);
    for folder in [
        root.join("blobs"),
        root.join("refs"),
        root.join(".no_exist").join(&sha),
        snapshot.clone(),
    ] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::create_dir_all(cache.path().join("blobs/ab")).unwrap();
    fs::write(root.join("refs/main"), &sha).unwrap();
    fs::write(root.join(".no_exist").join(&sha).join("adapter_config.json"), "").unwrap();
    fs::write(root.join("blobs").join(&config), "{}").unwrap();
    symlink(format!("../../blobs/{config}"), snapshot.join("config.json")).unwrap();
    fs::write(cache.path().join("blobs/ab").join(&xet), "weights").unwrap();
    symlink(format!("../../blobs/ab/{xet}"), root.join("blobs").join(&weights)).unwrap();
    symlink(format!("../../blobs/{weights}"), snapshot.join("model.safetensors")).unwrap();
    let left = root
        .join("blobs")
        .join(format!("{}.0123abcd.incomplete", hash("LICENSE", b"free")));
    fs::write(&left, "fr").unwrap();

    let options = server.options(cache.path());
    let offline = HubOptions {
        offline: true,
        ..options.clone()
    };
    assert_eq!(model_folder("org/tiny", "main", &offline).unwrap(), snapshot);
    assert_eq!(model_folder("org/tiny", "main", &options).unwrap(), snapshot);
    assert_eq!(server.take_downloads(), ["LICENSE"]);
    assert_eq!(fs::read(snapshot.join("LICENSE")).unwrap(), b"free");
    assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), b"weights");
    // Another process may still be at it.
    assert_eq!(fs::read(&left).unwrap(), b"fr");
}
