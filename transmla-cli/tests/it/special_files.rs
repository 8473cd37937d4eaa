//! Pipes, devices and files of gigabytes where small files are expected are refused at once, not waited for or read whole.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ran, Workplace, command};

/// What no command here takes, on however slow a machine.
const LONGEST: Duration = Duration::from_secs(30);

/// What stands in place of a file, and what is said of it.
const KINDS: [(&str, &str); 3] = [
    ("pipe", "not a regular file"),
    ("device", "not a regular file"),
    ("gigabytes", "larger than"),
];

fn put(kind: &str, path: &Path) {
    let _ = fs::remove_file(path);
    match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "device" => symlink("/dev/zero", path).unwrap(),
        // Sparse: it takes no room.
        _ => File::create(path).unwrap().set_len(2 << 30).unwrap(),
    }
}

/// Runs the binary, and ends it if it waits.
#[track_caller]
fn soon(arguments: &[String]) -> Ran {
    let mut command = command();
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > LONGEST {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running: {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn inspect(place: &Workplace) -> Vec<String> {
    vec!["inspect".into(), "--model-path".into(), place.arg("model")]
}

#[test]
fn a_configuration() {
    for (kind, said) in KINDS {
        let place = Workplace::new();
        put(kind, &place.path("model/config.json"));
        for arguments in [inspect(&place), place.convert(&[])] {
            soon(&arguments).fails(1, &["config.json", said]);
        }
        assert!(place.contents().is_empty(), "{kind}: {:?}", place.contents());
    }
}

#[test]
fn an_index() {
    for (kind, said) in KINDS {
        let place = Workplace::new();
        fs::remove_file(place.path("model/model.safetensors")).unwrap();
        put(kind, &place.path("model/model.safetensors.index.json"));
        for arguments in [inspect(&place), place.convert(&[])] {
            soon(&arguments).fails(1, &["model.safetensors.index.json", said]);
        }
    }
}

#[test]
fn weights() {
    for kind in ["pipe", "device"] {
        let place = Workplace::new();
        put(kind, &place.path("model/model.safetensors"));
        for arguments in [inspect(&place), place.convert(&[])] {
            soon(&arguments).fails(1, &["model.safetensors", "no regular file"]);
        }
    }
}

#[test]
fn a_prompt() {
    for kind in ["pipe", "device"] {
        let place = Workplace::new();
        put(kind, &place.path("prompt"));
        let arguments = ["generate", "--model-path", "embedded", "--prompt-file"].map(str::to_owned);
        let arguments = [&arguments[..], &[place.arg("prompt")]].concat();
        soon(&arguments).fails(
            1,
            &["prompt", "not a regular file", "hint: pipe the text into the command"],
        );
    }
}

#[test]
fn a_recipe() {
    for (kind, said) in KINDS {
        let place = Workplace::new();
        put(kind, &place.path("recipe.toml"));
        let arguments = place.convert(&["--recipe", &place.arg("recipe.toml")]);
        soon(&arguments).fails(1, &["recipe.toml", said]);
    }
}

/// In the place of a result it says whose the files there are; beside a model it is no more than a note.
#[test]
fn a_list_of_files() {
    for (kind, said) in KINDS {
        let place = Workplace::new();
        fs::create_dir(place.path("outputs")).unwrap();
        put(kind, &place.path("outputs/transmla.toml"));
        soon(&place.convert(&["--force"])).fails(1, &["transmla.toml", said]);
        put(kind, &place.path("model/transmla.toml"));
        soon(&inspect(&place)).succeeds();
    }
}
