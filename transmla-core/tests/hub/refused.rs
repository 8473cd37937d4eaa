//! A hub that refuses, is not there, or lies.

use std::fs;

use transmla_core::hub::{HubOptions, dataset_folder, model_folder};

use crate::server::Server;

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
        "c1",
        &[("README.md", b"text"), ("weights.gguf", b"GGUF")],
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
    server.put("models/org/name", "c1", &[]);
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
    server.put("datasets/org/texts", "d1", &[]);
    for (listing, found) in [
        (
            r#"{"sha": "d1", "siblings": [{"rfilename": "../../../../escaped.txt"}]}"#,
            "escaped.txt",
        ),
        (
            r#"{"sha": "d1", "siblings": [{"rfilename": "/tmp/escaped.txt"}]}"#,
            "/tmp/escaped.txt",
        ),
        (
            r#"{"sha": "../../../d1", "siblings": [{"rfilename": "a.txt"}]}"#,
            "../../../d1",
        ),
        (r#"{"sha": "", "siblings": [{"rfilename": "a.txt"}]}"#, "commit \"\""),
    ] {
        server.state.lock().unwrap().listing = Some(listing.into());
        let error = dataset_folder("org/texts", "main", &options, &|_| true)
            .unwrap_err()
            .to_string();
        assert_says(&error, &["org/texts", found]);
    }
    let entries = fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(entries.into_iter().all(|name| name == "cache"));
}

#[test]
fn a_file_of_another_commit_than_the_listing() {
    let server = Server::start();
    let cache = tempfile::tempdir().unwrap();
    server.put("models/org/name", "c2", &[("config.json", b"{}")]);
    server.state.lock().unwrap().listing = Some(r#"{"sha": "c1", "siblings": [{"rfilename": "config.json"}]}"#.into());
    assert_says(
        &message(&server.options(cache.path())),
        &["config.json", "another commit than c1"],
    );
}
