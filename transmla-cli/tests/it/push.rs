//! `transmla push`: a conversion onto a hub on the loopback interface.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Workplace, command, names, run, transmla};
use crate::upload_server::UploadServer;

/// Uploads `outputs` to a server.
fn push(place: &Workplace, server: &UploadServer, more: &[&str]) -> Command {
    let mut push = command();
    push.args(["push", "--repo-id", "me/tiny", "--model-path", &place.arg("outputs")])
        .args(more)
        .env("HF_HUB_OFFLINE", "0")
        .env("HF_ENDPOINT", server.host())
        .env("HF_TOKEN", "hf_secret");
    push
}

#[test]
fn a_conversion_is_uploaded_as_it_was_written() {
    let (place, server) = (Workplace::new(), UploadServer::start());
    transmla(&place.convert(&[])).succeeds();
    std::fs::write(place.path("outputs/notes.txt"), "mine").unwrap();
    let ran = run(&mut push(&place, &server, &["--private"]));
    assert!(ran.stderr.contains("not uploaded: notes.txt"), "{ran:?}");
    assert_eq!(ran.succeeds(), format!("{}/me/tiny/tree/main\n", server.host()));
    let arrived = server.files("me/tiny", "main");
    let written = names(&place.path("outputs"))
        .into_iter()
        .filter(|name| name != "notes.txt");
    let mut expected: Vec<String> = written.chain([".gitattributes".to_owned()]).collect();
    expected.sort();
    assert_eq!(arrived.keys().cloned().collect::<Vec<_>>(), expected);
    for (name, contents) in arrived.iter().filter(|(name, _)| *name != ".gitattributes") {
        assert!(
            *contents == std::fs::read(place.path("outputs").join(name)).unwrap(),
            "{name}"
        );
    }
    {
        let state = server.state.lock().unwrap();
        let repository = &state.repositories["me/tiny"];
        assert!(repository.private && repository.messages[0].starts_with("Upload with transmla "));
    }
    // A card that was completed goes alone.
    std::fs::write(place.path("outputs/README.md"), "# Tiny").unwrap();
    let again = run(&mut push(&place, &server, &["--json", "--message", "A better card"])).json();
    assert_eq!(
        (&again["files"], &again["sent_large_bytes"]),
        (&json!(["README.md"]), &json!(0))
    );
    assert_eq!(server.files("me/tiny", "main")["README.md"], b"# Tiny");
    assert_eq!(
        server.state.lock().unwrap().repositories["me/tiny"].messages[1],
        "A better card"
    );
    let done = run(&mut push(&place, &server, &[]));
    assert!(done.stderr.contains("were there already"), "{done:?}");
}

#[test]
fn a_dry_run_asks_nobody() {
    let (place, server) = (Workplace::new(), UploadServer::start());
    transmla(&place.convert(&[])).succeeds();
    let plan = run(&mut push(&place, &server, &["--dry-run", "--json"])).json();
    let listed = plan["files"].as_array().unwrap().iter();
    assert!(listed.clone().any(|file| file["name"] == "model.safetensors"), "{plan}");
    assert!(listed.map(|file| &file["bytes"]).all(Value::is_u64), "{plan}");
    let table = run(&mut push(&place, &server, &["--dry-run"])).succeeds();
    assert!(table.contains("-> me/tiny") && table.contains("README.md"), "{table}");
    assert_eq!(server.take_requests(), [""; 0]);
}

#[test]
fn what_is_no_finished_conversion_is_refused() {
    let (place, server) = (Workplace::new(), UploadServer::start());
    let refused = |words: &[&str]| run(&mut push(&place, &server, &[])).fails(1, words);
    refused(&["no finished model", "no such folder"]);
    std::fs::rename(place.path("model"), place.path("outputs")).unwrap();
    refused(&["no transmla.toml"]);
    std::fs::rename(place.path("outputs"), place.path("model")).unwrap();
    transmla(&place.convert(&[])).succeeds();
    std::fs::remove_file(place.path("outputs/README.md")).unwrap();
    refused(&["README.md is missing"]);
    std::fs::write(place.path("outputs/README.md"), "x").unwrap();
    std::fs::write(place.path("outputs/model.safetensors"), "x").unwrap();
    refused(&["model.safetensors has 1 bytes"]);
    assert_eq!(server.take_requests(), [""; 0]);
    transmla(&place.convert(&["--force"])).fails(1, &["model.safetensors"]);
    std::fs::remove_dir_all(place.path("outputs")).unwrap();
    transmla(&place.convert(&[])).succeeds();
    run(push(&place, &server, &[])
        .env_remove("HF_TOKEN")
        .env("HOME", place.path("")))
    .fails(1, &["HF_TOKEN"]);
    run(push(&place, &server, &[]).env("HF_HUB_OFFLINE", "1")).fails(1, &["HF_HUB_OFFLINE"]);
    transmla(&["push", "--model-path", "x", "--repo-id", "tiny"]).fails(2, &["--repo-id", "owner/name"]);
}
