//! A hub that refuses, is not there, or lies.

use std::fs;

use transmla_checkpoint::hub::{HubOptions, dataset_folder, model_folder};

use crate::server::{Fault, Server, commit};

/// The message of asking for a model, and the options it was asked with.
fn message(options: &HubOptions) -> String {
    model_folder("org/name", "main", options).unwrap_err().to_string()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}

#[test]
fn a_repository_that_does_not_exist() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    assert_says(
        &message(&options),
        &["org/name", "no such repository", "revision main", "404"],
    );
}

#[test]
fn a_gated_repository() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut options = server.options(cache.path());
    server.state.lock().unwrap().status = Some(401);
    assert_says(&message(&options), &["org/name", "gated", "set HF_TOKEN", "401"]);
    options.token = Some("hf_secret".into());
    for status in [401, 403] {
        server.state.lock().unwrap().status = Some(status);
        let text = message(&options);
        assert_says(&text, &["org/name", "HF_TOKEN gives no access", &status.to_string()]);
        assert!(!text.contains("hf_secret"));
    }
}

#[test]
fn a_hub_that_fails_or_is_not_there() {
    let mut server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.state.lock().unwrap().status = Some(503);
    assert_says(&message(&options), &["org/name", "503", "network"]);
    server.stop();
    assert_says(&message(&options), &["org/name", "network"]);
}

#[test]
fn a_repository_without_a_model() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put(
        "models/org/name",
        &commit(1),
        &[("train.py", b"text"), ("weights.gguf", b"GGUF")],
    );
    assert_says(
        &message(&server.options(cache.path())),
        &["org/name", "none of the files"],
    );
}

#[test]
fn a_listing_that_is_none() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put("models/org/name", &commit(1), &[]);
    for listing in ["", "{}", "<html>log in</html>", r#"{"sha": 5, "siblings": []}"#] {
        server.state.lock().unwrap().listing = Some(listing.into());
        assert_says(&message(&server.options(cache.path())), &["org/name"]);
    }
}

#[test]
fn files_and_commits_outside_the_cache() {
    let server = Server::start();
    let outer = tempfile::tempdir().unwrap();
    let cache = outer.path().join("cache");
    let options = server.options(&cache);
    server.put("datasets/org/texts", &commit(1), &[]);
    let good = commit(1);
    for (sha, file, found) in [
        (good.as_str(), "../../../../escaped.txt", "escaped.txt"),
        (&good, "/tmp/escaped.txt", "/tmp/escaped.txt"),
        (&good, "a/../../b", "a/../../b"),
        (&good, "a\\u001b[2J", "a\\u{1b}[2J"),
        (&good, "", "no usable name"),
        ("../../../d1", "a.txt", "../../../d1"),
        ("", "a.txt", "commit \"\""),
        ("main", "a.txt", "40 hexadecimal digits"),
    ] {
        let listing = format!(r#"{{"sha": "{sha}", "siblings": [{{"rfilename": "{file}"}}]}}"#);
        server.state.lock().unwrap().listing = Some(listing);
        let error = dataset_folder("org/texts", "main", &options, &|_| true)
            .unwrap_err()
            .to_string();
        assert_says(&error, &["org/texts", found]);
        assert!(!error.contains('\u{1b}'));
    }
    let entries = fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(entries.into_iter().all(|name| name == "cache"));
}

#[test]
fn ids_and_revisions_that_are_paths() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    for (id, revision) in [
        ("org/..", "main"),
        ("org/na me", "main"),
        ("org/name?x", "main"),
        ("org/name", "../../x"),
        ("org/name", "/etc"),
        ("org/name", ""),
    ] {
        let error = dataset_folder(id, revision, &options, &|_| true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not an id") || error.contains("not a branch"), "{error}");
    }
    assert!(server.take_requests().is_empty());
}

#[test]
fn a_listing_beyond_measure() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let options = server.options(cache.path());
    server.put("models/org/name", &commit(1), &[("config.json", b"{}")]);
    server.state.lock().unwrap().endless_listing = true;
    assert_says(&message(&options), &["org/name", "larger than 64 MiB"]);
    server.state.lock().unwrap().endless_listing = false;
    let nested = format!(r#"{{"siblings": {}"#, "[".repeat(1 << 20));
    server.state.lock().unwrap().listing = Some(nested);
    assert_says(&message(&options), &["org/name", "does not answer as a hub"]);
}

#[test]
fn a_size_beyond_measure() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put("models/org/name", &commit(1), &[("config.json", b"{}")]);
    let listing = format!(
        r#"{{"sha": "{}", "siblings": [{{"rfilename": "config.json", "size": 9223372036854775808}}]}}"#,
        commit(1)
    );
    server.state.lock().unwrap().listing = Some(listing);
    assert_says(
        &message(&server.options(cache.path())),
        &["config.json", "9223372036854775808 bytes"],
    );
    assert!(server.take_downloads().is_empty());
}

#[test]
fn a_file_of_another_commit_than_the_listing() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put("models/org/name", &commit(2), &[("config.json", b"{}")]);
    let listing = format!(
        r#"{{"sha": "{}", "siblings": [{{"rfilename": "config.json"}}]}}"#,
        commit(1)
    );
    server.state.lock().unwrap().listing = Some(listing);
    let another = format!("another commit than {}", commit(1));
    assert_says(&message(&server.options(cache.path())), &["config.json", &another]);
}

#[test]
fn a_gated_file_is_refused_like_a_gated_listing() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    let mut options = server.options(cache.path());
    let files: &[(&str, &[u8])] = &[("config.json", b"{}"), ("model.safetensors", b"weights")];
    server.put("models/org/name", &commit(1), files);
    for status in [401, 403] {
        server.heal();
        server.fault("model.safetensors", Fault::Status(status), usize::MAX);
        options.token = None;
        let status = status.to_string();
        assert_says(
            &message(&options),
            &["org/name", "model.safetensors", "gated", "HF_TOKEN", &status],
        );
        options.token = Some("hf_secret".into());
        let text = message(&options);
        assert_says(
            &text,
            &["model.safetensors", "HF_TOKEN gives no access", "licence", &status],
        );
        assert!(!text.contains("hf_secret"));
    }
    server.heal();
    server.fault("model.safetensors", Fault::Status(404), usize::MAX);
    assert_says(
        &message(&options),
        &["model.safetensors", "lists it and does not have it", "404"],
    );
}

#[test]
fn a_token_that_is_none() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put("models/org/name", &commit(1), &[("config.json", b"{}")]);
    let options = HubOptions {
        token: Some("hf_secret\r\nHost: elsewhere".into()),
        ..server.options(cache.path())
    };
    let text = message(&options);
    assert_says(&text, &["HF_TOKEN has characters"]);
    assert!(!text.contains("hf_secret"));
    assert!(server.take_requests().is_empty());
}

#[test]
fn an_endpoint_that_is_none() {
    let cache = tempfile::tempdir().unwrap();
    for endpoint in [
        "",
        "hub.example",
        "file:///etc",
        "http://me:secret@hub.example",
        "http://",
    ] {
        let options = HubOptions {
            cache: Some(cache.path().to_path_buf()),
            endpoint: Some(endpoint.into()),
            ..HubOptions::default()
        };
        let text = message(&options);
        assert_says(&text, &["org/name", "HF_ENDPOINT"]);
        assert!(!text.contains("secret"), "{text}");
    }
    assert_says(&message(&HubOptions::default()), &["org/name", "HF_HOME"]);
}
