//! Downloads into a cache, and using it without the hub.

use std::fs;
use std::sync::{Arc, Mutex};

use transmla_checkpoint::Checkpoint;
use transmla_checkpoint::hub::{HubEvent, HubObserver, HubOptions, dataset_folder, model_folder};

use crate::server::{Fault, Server, commit};

const ID: &str = "org/stories";
const REPOSITORY: &str = "models/org/stories";

fn story_file(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
    fs::read(folder.join(name)).unwrap()
}

fn offline(options: &HubOptions) -> HubOptions {
    HubOptions {
        offline: true,
        endpoint: None,
        ..options.clone()
    }
}

#[test]
fn a_model_is_downloaded_once_and_used_without_the_hub_afterwards() {
    let mut server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    let (config, weights) = (story_file("config.json"), story_file("model.safetensors"));
    server.put(
        REPOSITORY,
        &commit(1),
        &[
            ("config.json", &config),
            ("model.safetensors", &weights),
            ("tokenizer.json", b"{}"),
            ("LICENSE", b"free"),
            ("NOTICE.txt", b"note"),
            ("README.md", b"text"),
            ("merges.txt", b"a b"),
            ("additional_chat_templates/rag.jinja", b"{{ x }}"),
            ("train.py", b"code"),
            ("pytorch_model.bin", b"pickle"),
            ("onnx/model.safetensors", b"another"),
        ],
    );

    let folder = model_folder(ID, "main", &options).unwrap();
    assert_eq!(
        folder,
        cache
            .path()
            .join(format!("models--org--stories/snapshots/{}", commit(1)))
    );
    let wanted = [
        "LICENSE",
        "NOTICE.txt",
        "README.md",
        "additional_chat_templates/rag.jinja",
        "config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(server.take_downloads(), wanted);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights);
    Checkpoint::open(&folder)
        .unwrap()
        .values("model.norm.weight", &[64])
        .unwrap();

    // A second time only the listing is asked for, and without the hub, or with the hub gone, nothing.
    assert_eq!(model_folder(ID, "main", &options).unwrap(), folder);
    assert!(server.take_downloads().is_empty());
    server.stop();
    assert_eq!(model_folder(ID, "main", &offline(&options)).unwrap(), folder);
    assert_eq!(model_folder(ID, &commit(1), &offline(&options)).unwrap(), folder);
    assert_eq!(model_folder(ID, "main", &options).unwrap(), folder);
    assert!(model_folder(ID, "v2", &options).is_err());
}

#[test]
fn files_that_another_client_downloaded_are_not_downloaded_again() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put(
        REPOSITORY,
        &commit(1),
        &[("config.json", b"{}"), ("tokenizer.json", b"{}")],
    );
    let root = cache.path().join("models--org--stories");
    fs::create_dir_all(root.join("refs")).unwrap();
    let snapshot = root.join("snapshots").join(commit(1));
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(root.join("refs/main"), commit(1)).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    assert_eq!(model_folder(ID, "main", &options).unwrap(), snapshot);
    assert_eq!(server.take_downloads(), ["tokenizer.json"]);
}

#[test]
fn a_file_that_was_removed_from_the_cache_is_downloaded_again() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put(
        REPOSITORY,
        &commit(1),
        &[("config.json", b"{}"), ("tokenizer.json", b"{}")],
    );
    let folder = model_folder(ID, "main", &options).unwrap();
    server.take_downloads();
    // The blob, so that a link to nothing remains; then the link.
    fs::remove_file(folder.join("config.json").canonicalize().unwrap()).unwrap();
    assert_eq!(model_folder(ID, "main", &options).unwrap(), folder);
    assert_eq!(server.take_downloads(), ["config.json"]);
    assert_eq!(fs::read(folder.join("config.json")).unwrap(), b"{}");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    model_folder(ID, "main", &options).unwrap();
    assert_eq!(fs::read(folder.join("tokenizer.json")).unwrap(), b"{}");
}

#[test]
fn a_complete_cache_is_not_written_to() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put(REPOSITORY, &commit(1), &[("config.json", b"{}")]);
    let folder = model_folder(ID, "main", &options).unwrap();
    let reference = cache.path().join("models--org--stories/refs/main");
    let written = fs::metadata(&reference).unwrap().modified().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(model_folder(ID, "main", &options).unwrap(), folder);
    assert_eq!(fs::metadata(&reference).unwrap().modified().unwrap(), written);
}

#[test]
fn a_branch_that_moved_is_followed_without_mixing_commits() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put(
        REPOSITORY,
        &commit(1),
        &[("config.json", b"first"), ("vocab.json", b"first")],
    );
    let first = model_folder(ID, "main", &options).unwrap();

    server.put(
        REPOSITORY,
        &commit(2),
        &[("config.json", b"second"), ("tokenizer.json", b"second")],
    );
    let second = model_folder(ID, "main", &options).unwrap();
    assert_eq!(fs::read(second.join("config.json")).unwrap(), b"second");
    assert_eq!(fs::read(second.join("tokenizer.json")).unwrap(), b"second");
    assert!(!second.join("vocab.json").exists());
    assert_eq!(fs::read(first.join("config.json")).unwrap(), b"first");
    assert!(!first.join("tokenizer.json").exists());
    assert_eq!(model_folder(ID, "main", &offline(&options)).unwrap(), second);
}

#[test]
fn a_download_that_fails_names_the_file_and_leaves_the_last_complete_copy() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put(
        REPOSITORY,
        &commit(1),
        &[("config.json", b"first"), ("tokenizer.json", b"first")],
    );
    let first = model_folder(ID, "main", &options).unwrap();

    server.put(
        REPOSITORY,
        &commit(2),
        &[("config.json", b"second"), ("tokenizer.json", b"second")],
    );
    server.fault("tokenizer.json", Fault::Status(500), usize::MAX);
    let error = model_folder(ID, "main", &options).unwrap_err().to_string();
    assert!(
        error.contains(ID) && error.contains("tokenizer.json") && error.contains("500"),
        "{error}"
    );
    assert_eq!(model_folder(ID, "main", &offline(&options)).unwrap(), first);

    server.heal();
    let second = model_folder(ID, "main", &options).unwrap();
    assert_eq!(fs::read(second.join("tokenizer.json")).unwrap(), b"second");
}

#[test]
fn a_dataset_keeps_its_folders() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    let files: &[(&str, &[u8])] = &[
        ("README.md", b"text"),
        ("data/en/train.txt", b"a\nb"),
        ("data/en/test.txt", b"c"),
        ("data/de/test.txt", b"d"),
    ];
    server.put("datasets/org/texts", &commit(3), files);
    let folder = dataset_folder("org/texts", "main", &options, &|file| file.starts_with("data/en/")).unwrap();
    assert_eq!(
        folder,
        cache
            .path()
            .join(format!("datasets--org--texts/snapshots/{}", commit(3)))
    );
    assert_eq!(
        server.take_downloads(),
        ["en/test.txt", "en/train.txt"].map(|n| format!("data/{n}"))
    );
    assert_eq!(fs::read(folder.join("data/en/train.txt")).unwrap(), b"a\nb");
}

/// What an observer is told, without the positions of transfers.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl HubObserver for Told {
    fn event(&self, event: &HubEvent<'_>) {
        let text = match event {
            HubEvent::Started { file, bytes } => format!("started {file} {bytes:?}"),
            HubEvent::Progress { position } => format!("at {position}"),
            HubEvent::Finished { file } => format!("finished {file}"),
            HubEvent::FromCache { repo, .. } => format!("{repo} from the cache"),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

#[test]
fn an_observer_is_told() {
    let mut server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let told = Arc::new(Told::default());
    let mut options = server.options(cache.path());
    options.observer = Some(told.clone());
    let take = || std::mem::take(&mut *told.0.lock().unwrap());
    server.put(REPOSITORY, &commit(1), &[("config.json", b"12345")]);
    model_folder(ID, "main", &options).unwrap();
    assert_eq!(take(), ["started config.json Some(5)", "at 5", "finished config.json"]);
    model_folder(ID, "main", &options).unwrap();
    assert!(take().is_empty());
    server.stop();
    model_folder(ID, "main", &options).unwrap();
    assert_eq!(take(), ["org/stories from the cache"]);
}
