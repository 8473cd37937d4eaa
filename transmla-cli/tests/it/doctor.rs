//! `transmla doctor` tells what works on this machine, and ends with 1 if something does not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use crate::support::{Ran, Workplace, command, run};

/// A doctor whose folders are all in a place of its own.
fn doctor(place: &Workplace, more: &[&str]) -> Command {
    let mut command = command();
    command.arg("doctor").args(more).current_dir(place.path("model"));
    command
        .env("HF_HOME", place.arg("home"))
        .env("TMPDIR", place.arg("model"));
    command
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap()
}

/// The report of a doctor who found something that does not work.
fn failing(ran: &Ran) -> Value {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.starts_with("error: 1 check failed: "), "{ran:?}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_machine_that_is_ready() {
    let place = Workplace::new();
    let report = run(&mut doctor(&place, &["--json"])).json();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["failures"], 0, "{report:#}");
    for name in [
        "processor",
        "backends",
        "device",
        "memory",
        "temporary",
        "working folder",
        "hub cache",
        "token",
        "hub",
    ] {
        let check = check(&report, name);
        assert!(check["state"] == "ok" || check["fix"].is_string(), "{check:#}");
    }
    assert!(
        check(&report, "hub")["found"]
            .as_str()
            .unwrap()
            .contains("HF_HUB_OFFLINE")
    );
    assert!(
        check(&report, "hub cache")["found"]
            .as_str()
            .unwrap()
            .contains("made when it is needed")
    );
    let built = check(&report, "backends")["found"].as_str().unwrap().to_owned();
    assert_eq!(
        built.contains("not built in: cuda"),
        cfg!(not(feature = "cuda")),
        "{built}"
    );
    // Looking leaves nothing behind.
    assert!(place.contents().is_empty());
    let text = run(&mut doctor(&place, &[])).succeeds();
    assert!(text.starts_with("transmla ") && text.contains("\n  ok    "), "{text}");
}

#[test]
fn a_folder_that_cannot_be_used_is_a_failure_with_a_fix() {
    let place = Workplace::new();
    let file = place.arg("model/config.json");
    let report = failing(&run(doctor(&place, &["--json"]).env("TMPDIR", &file)));
    let temporary = check(&report, "temporary");
    assert_eq!(temporary["state"], "fail");
    assert!(temporary["fix"].as_str().unwrap().contains("TMPDIR"));
    // A cache is needed for models of the hub alone.
    let report = run(doctor(&place, &["--json"]).env("HF_HOME", &file)).json();
    assert_eq!(check(&report, "hub cache")["state"], "warn");
}

#[test]
fn a_token_is_never_shown() {
    let place = Workplace::new();
    for form in [&[][..], &["--json"]] {
        let ran = run(doctor(&place, form).env("HF_TOKEN", "hf_secret"));
        assert!(
            !ran.stdout.contains("hf_secret") && !ran.stderr.contains("hf_secret"),
            "{ran:?}"
        );
        assert!(ran.succeeds().contains("there is one"));
    }
}

/// A server that gives one request this answer; what was asked.
fn serve(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 4096];
        let count = stream.read(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&asked[..count]).into_owned()
    });
    (address, thread)
}

#[test]
fn the_hub_is_asked_only_on_request() {
    let place = Workplace::new();
    let online = |more: &[&str], endpoint: &str, token: &str| {
        let mut command = doctor(&place, more);
        command
            .env("HF_HUB_OFFLINE", "0")
            .env("HF_ENDPOINT", endpoint)
            .env("HF_TOKEN", token);
        run(&mut command)
    };
    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let (address, asked) = serve(GOOD);
    let report = online(&["--json", "--online"], &address, "").json();
    assert_eq!(check(&report, "hub")["found"], format!("{address} answers"));
    assert!(asked.join().unwrap().starts_with("GET / HTTP/1.1"));

    let (address, asked) = serve("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let report = failing(&online(&["--json", "--online"], &address, "hf_secret"));
    assert!(
        check(&report, "hub")["found"]
            .as_str()
            .unwrap()
            .contains("does not accept the token")
    );
    assert!(asked.join().unwrap().starts_with("GET /api/whoami-v2"));

    // Nothing listens on port 9 here.
    let report = failing(&online(&["--json", "--online"], "http://127.0.0.1:9", ""));
    assert!(check(&report, "hub")["fix"].as_str().unwrap().contains("HF_ENDPOINT"));
    let report = online(&["--json"], "http://127.0.0.1:9", "").json();
    assert!(check(&report, "hub")["found"].as_str().unwrap().contains("--online"));
}
