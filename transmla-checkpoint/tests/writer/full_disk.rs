//! No space left: the file is named and nothing stays behind.

#![cfg(target_os = "linux")]

use std::process::{Command, Output};

use transmla_checkpoint::{CheckpointError, CheckpointWriter, StorageDtype, TensorSpec};

use crate::fixture::{Place, create, text};

const TARGET: &str = "TRANSMLA_TEST_TARGET";

/// Runs one of the `child_` functions below in a process of its own that gets errors, not signals, for files beyond a
/// limit; `kibibytes` is the limit from the start.
fn run_child(name: &str, place: &Place, kibibytes: Option<u64>) -> Output {
    let limit = kibibytes.map_or_else(String::new, |limit| format!("ulimit -f {limit} && "));
    let script = format!(r#"trap "" XFSZ; {limit}exec "$0" "$@""#);
    Command::new("bash")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("full_disk::{name}"), "--ignored", "--nocapture"])
        .env(TARGET, place.target())
        .output()
        .unwrap()
}

#[track_caller]
fn assert_ok(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// A megabyte of weights.
fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("w", [512, 512])]
}

#[test]
#[ignore = "started by the tests below"]
fn child_that_has_no_room_for_the_shards() {
    let Some(target) = std::env::var_os(TARGET) else {
        return;
    };
    let result = CheckpointWriter::create(target.as_ref(), &specs(), StorageDtype::F32, u64::MAX, true);
    assert_names(&result.unwrap_err(), "model.safetensors");
}

#[test]
fn no_room_for_the_shards() {
    let place = Place::new();
    place.put_old_target("old");
    assert_ok(&run_child("child_that_has_no_room_for_the_shards", &place, Some(64)));
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

#[test]
#[ignore = "started by the tests below"]
fn child_whose_room_runs_out_while_it_writes() {
    let Some(target) = std::env::var_os(TARGET) else {
        return;
    };
    let mut writer = CheckpointWriter::create(target.as_ref(), &specs(), StorageDtype::F32, u64::MAX, true).unwrap();
    writer.append("w", &vec![1.0; 512 * 64]).unwrap();
    let limited = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--fsize=262144"])
        .status()
        .unwrap();
    assert!(limited.success());
    let mut rest = (1..8).map(|_| writer.append("w", &vec![1.0; 512 * 64]));
    assert_names(&rest.find_map(Result::err).unwrap(), "model.safetensors");
}

#[test]
fn room_that_runs_out_while_weights_are_written() {
    let place = Place::new();
    place.put_old_target("old");
    assert_ok(&run_child("child_whose_room_runs_out_while_it_writes", &place, None));
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

#[test]
fn a_full_disk_for_the_small_files() {
    let place = Place::new();
    let writer = create(&place.target(), false).unwrap();
    std::os::unix::fs::symlink("/dev/full", writer.work_folder().join("config.json")).unwrap();
    let error = writer.write_file("config.json", b"{}").unwrap_err();
    assert_names(&error, "config.json");
    assert!(error.to_string().contains("No space left on device"), "{error}");
    drop(writer);
    assert!(place.names().is_empty());
}

fn assert_names(error: &CheckpointError, file: &str) {
    let message = error.to_string();
    assert!(
        matches!(error, CheckpointError::Io { action: "write", .. }),
        "{error:?}"
    );
    assert!(message.contains("cannot write") && message.contains(file), "{message}");
}
