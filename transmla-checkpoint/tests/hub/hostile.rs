//! Headers and redirects of a hub that means ill: nothing outside the cache, no token elsewhere, an end to everything.

use std::fs;
use std::path::{Path, PathBuf};

use transmla_checkpoint::hub::{HubOptions, model_folder};

use crate::server::{Asked, Fault, Server, commit};

const ID: &str = "org/name";

/// A hub with a small and a large file, and a cache in a folder of its own.
struct Place {
    server: Server,
    outer: tempfile::TempDir,
    options: HubOptions,
}

impl Place {
    fn new() -> Self {
        let server = Server::start();
        let files: &[(&str, &[u8])] = &[("config.json", b"{}"), ("model.safetensors", b"weights")];
        server.put("models/org/name", &commit(1), files);
        let outer = tempfile::tempdir().unwrap();
        let options = HubOptions {
            token: Some("hf_secret".into()),
            ..server.options(&outer.path().join("cache"))
        };
        Self { server, outer, options }
    }

    fn error(&self) -> String {
        model_folder(ID, "main", &self.options).unwrap_err().to_string()
    }

    fn fetch(&self) -> PathBuf {
        model_folder(ID, "main", &self.options).unwrap()
    }
}

/// Every file below a folder, links not followed.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        match path.is_dir() && !path.is_symlink() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn a_tag_that_is_a_path_overwrites_nothing() {
    for names_only in [true, false] {
        for file in ["config.json", "model.safetensors"] {
            let mut place = Place::new();
            place.server.state.lock().unwrap().names_only = names_only;
            let precious = place.outer.path().join("precious");
            fs::write(&precious, "mine").unwrap();
            for tag in [
                format!("\"{}\"", precious.display()),
                "\"../../../precious\"".into(),
                "W/\"..\"".into(),
                "\"\"".into(),
                "\"d41d8cd98f00b204e9800998ecf8427e\"".into(),
            ] {
                place.server.heal();
                place.server.fault(file, Fault::Etag(Some(tag)), usize::MAX);
                let error = place.error();
                assert!(error.contains(file) && error.contains("ETag"), "{error}");
            }
            assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
            let cache = place.outer.path().join("cache");
            let outside = files(place.outer.path())
                .into_iter()
                .filter(|path| !path.starts_with(&cache));
            assert_eq!(outside.collect::<Vec<_>>(), [precious]);
            place.options.cache = Some(place.outer.path().join("another"));
            place.server.heal();
            place.fetch();
        }
    }
}

#[test]
fn a_tag_that_is_another_hash_is_noticed() {
    let place = Place::new();
    place.server.fault("config.json", Fault::Etag(None), usize::MAX);
    assert!(place.error().contains("no ETag"));
    // By the listing, and where that has no hashes by the contents.
    place.server.heal();
    place
        .server
        .fault("config.json", Fault::Etag(Some("0".repeat(40))), usize::MAX);
    assert!(place.error().contains("lists it with the hash"));
    place.server.state.lock().unwrap().names_only = true;
    assert!(place.error().contains("does not have the announced hash"));
}

#[test]
fn a_commit_that_is_a_path_makes_no_folders() {
    let place = Place::new();
    for other in [Some("../../..".to_owned()), Some(commit(2)), Some(String::new()), None] {
        place.server.heal();
        place
            .server
            .fault("config.json", Fault::Commit(other.clone()), usize::MAX);
        let error = place.error();
        let expected = if other.is_some() {
            "another commit"
        } else {
            "X-Repo-Commit"
        };
        assert!(error.contains("config.json") && error.contains(expected), "{error}");
    }
    assert_eq!(files(place.outer.path()), Vec::<PathBuf>::new());
    let entries = fs::read_dir(place.outer.path()).unwrap().count();
    assert!(entries <= 1, "{entries} entries");
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let place = Place::new();
    // A small file elsewhere too.
    place
        .server
        .fault("config.json", Fault::Redirect(Some("CDN".into())), usize::MAX);
    place.fetch();
    let requests = place.server.take_requests();
    let (hub, cdn): (Vec<&Asked>, Vec<&Asked>) = requests.iter().partition(|asked| asked.host == "hub");
    assert!(
        !hub.is_empty()
            && hub
                .iter()
                .all(|asked| asked.authorization.as_deref() == Some("Bearer hf_secret"))
    );
    assert!(cdn.len() >= 3, "both files lie there: {requests:?}");
    assert!(cdn.iter().all(|asked| asked.authorization.is_none()), "{requests:?}");
}

#[test]
fn a_relative_redirect_keeps_the_token() {
    let place = Place::new();
    let moved = format!("/org/renamed/resolve/{}/config.json", commit(1));
    place
        .server
        .put("models/org/renamed", &commit(1), &[("config.json", b"{}")]);
    place
        .server
        .fault("config.json", Fault::Redirect(Some(moved.clone())), usize::MAX);
    let requests = |place: &Place| place.server.take_requests();
    // The new address answers with the same redirect to itself: a circle.
    assert!(place.error().contains("circle"));
    let asked = requests(&place);
    let of_moved = asked.iter().filter(|asked| asked.path == moved);
    assert!(of_moved.clone().count() > 0);
    assert!(of_moved.into_iter().all(|asked| asked.authorization.is_some()));
}

#[test]
fn redirects_that_lead_nowhere_end() {
    let place = Place::new();
    for (location, words) in [
        (Some("HERE".to_owned()), "circle"),
        (None, "no Location"),
        (Some(String::new()), "no Location"),
        (Some("x/".to_owned()), "404"),
        (Some("file:///etc/passwd".to_owned()), "not an address"),
        (Some("http://hub@127.0.0.1:9/".to_owned()), "user's name"),
        (Some("http://127.0.0.1:9/".to_owned()), "127.0.0.1:9"),
    ] {
        place.server.heal();
        place.server.take_requests();
        place
            .server
            .fault("config.json", Fault::Redirect(location.clone()), usize::MAX);
        let error = place.error();
        assert!(
            error.contains("config.json") && error.contains(words),
            "{location:?}: {error}"
        );
        let asked = place.server.take_requests().len();
        assert!(asked < 20, "{asked} requests");
    }
}

#[test]
fn redirects_to_ever_new_addresses_end() {
    let place = Place::new();
    place
        .server
        .fault("config.json", Fault::Redirect(Some("HERE?".into())), usize::MAX);
    // The address grows with each, and stays that of the file.
    let error = place.error();
    assert!(error.contains("more than 10 redirects"), "{error}");
    assert!(place.server.take_requests().len() < 20);
}

#[test]
fn a_coding_that_was_not_asked_for() {
    let place = Place::new();
    place.server.fault("config.json", Fault::Compressed, usize::MAX);
    assert!(place.error().contains("gzip"));
}
