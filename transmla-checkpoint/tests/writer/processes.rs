//! Several processes at one target, and what is cleared where a process must end at once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use transmla_checkpoint::checkpoint::{Claim, GgufTensor, GgufValue, GgufWriter, Place, remove_unfinished};
use transmla_checkpoint::{CheckpointError, StorageDtype};

use crate::fixture::{Place as Folder, create, fill, names};

const TARGET: &str = "TRANSMLA_TEST_TARGET";

/// Starts one of the `child_` functions below in a process of its own.
fn start(name: &str, target: &Path, wrapper: &[&str]) -> Child {
    let program = std::env::current_exe().unwrap();
    let words: Vec<&std::ffi::OsStr> = wrapper
        .iter()
        .map(std::ffi::OsStr::new)
        .chain([program.as_os_str()])
        .collect();
    Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", &format!("processes::{name}"), "--ignored", "--nocapture"])
        .env(TARGET, target)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[track_caller]
fn assert_ok(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
    text
}

fn target() -> Option<std::path::PathBuf> {
    std::env::var_os(TARGET).map(Into::into)
}

/// Waits for a file that another process makes.
fn wait_for(path: &Path) {
    for _ in 0..600 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{} has not come", path.display());
}

#[test]
#[ignore = "started by the tests below"]
fn child_that_holds_a_claim() {
    let Some(target) = target() else { return };
    let _claim = Claim::of(&target).unwrap();
    fs::write(target.with_file_name("claimed"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_target_that_a_living_process_has_is_refused_and_one_of_a_killed_process_is_not() {
    let place = Folder::new();
    let mut child = start("child_that_holds_a_claim", &place.target(), &[]);
    wait_for(&place.path().join("claimed"));
    let error = Claim::of(&place.target()).unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(error, CheckpointError::Busy { process, .. } if process == Some(child.id())),
        "{message}"
    );
    assert!(
        message.contains("another process") && message.contains("model"),
        "{message}"
    );
    // Another target of the same folder is free.
    drop(Claim::of(&place.path().join("other")).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    drop(Claim::of(&place.target()).unwrap());
    assert_eq!(place.names(), ["claimed"]);
}

#[test]
fn a_process_has_a_target_once() {
    let place = Folder::new();
    let claim = Claim::of(&place.target()).unwrap();
    assert!(matches!(Claim::of(&place.target()), Err(CheckpointError::Busy { .. })));
    drop(claim);
    drop(Claim::of(&place.target()).unwrap());
    assert!(place.names().is_empty());
}

/// A GGUF file whose one tensor has the process's number in every element, written slowly.
fn write_gguf(target: &Path) {
    let tensors = (0..40).map(|index| GgufTensor {
        name: format!("t{index}"),
        shape: vec![64, 64],
        dtype: StorageDtype::F32.into(),
    });
    let tensors: Vec<GgufTensor> = tensors.collect();
    let keys = [("writer".to_owned(), GgufValue::U32(std::process::id()))];
    let mut writer = GgufWriter::create(target, &keys, tensors.clone(), true).unwrap();
    for tensor in &tensors {
        writer
            .write(&tensor.name, &[std::process::id() as f32; 64 * 64])
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    writer.commit().unwrap();
}

#[test]
#[ignore = "started by the tests below"]
fn child_that_writes_gguf() {
    if let Some(target) = target() {
        write_gguf(&target);
    }
}

#[test]
fn a_gguf_file_is_of_one_writer() {
    let place = Folder::new();
    let target = place.path().join("m.gguf");
    let children: Vec<Child> = (0..4).map(|_| start("child_that_writes_gguf", &target, &[])).collect();
    let ids: Vec<u32> = children.iter().map(Child::id).collect();
    children.into_iter().for_each(|child| drop(assert_ok(child)));
    assert_eq!(place.names(), ["m.gguf"]);
    let file = fs::read(&target).unwrap();
    let data = &file[file.len() - 40 * 64 * 64 * 4..];
    let first = f32::from_le_bytes(data[..4].try_into().unwrap());
    assert!(ids.contains(&(first as u32)), "{first} {ids:?}");
    assert!(data.chunks_exact(4).all(|number| number == first.to_le_bytes()));
    let key = file.windows(6).position(|window| window == b"writer").unwrap() + 10;
    assert_eq!(file[key..key + 4], (first as u32).to_le_bytes());
}

#[test]
fn a_gguf_file_replaces_a_file_only_on_purpose() {
    let place = Folder::new();
    let target = place.target();
    let create = |replace| GgufWriter::create(&target, &[], Vec::new(), replace);
    let writer = create(false).unwrap();
    // It comes while the writer is at work.
    fs::write(&target, "somebody's").unwrap();
    let message = writer.commit().unwrap_err().to_string();
    assert!(message.contains("already exists"), "{message}");
    assert!(create(false).is_err());
    assert_eq!(fs::read_to_string(&target).unwrap(), "somebody's");
    create(true).unwrap().commit().unwrap();
    assert_eq!(fs::read(&target).unwrap()[..4], *b"GGUF");
    assert_eq!(place.names(), ["model"]);
}

#[test]
fn a_gguf_file_replaces_no_folder() {
    let place = Folder::new();
    place.put_old_target("old");
    let mut writer = GgufWriter::create(&place.target(), &[], Vec::new(), true).unwrap();
    assert!(writer.write("t", &[1.0]).is_err());
    assert!(writer.commit().is_err());
    assert_eq!(crate::fixture::text(&place.target()), "old");
    assert_eq!(place.names(), ["model"]);
}

#[test]
#[ignore = "started by the tests below"]
fn child_that_ends_at_once() {
    let Some(target) = target() else { return };
    let claim = Claim::of(&target).unwrap();
    let mut writer = create(&target, true).unwrap();
    writer.write("a", &[1.0; 6]).unwrap();
    let gguf = GgufWriter::create(&target.with_file_name("m.gguf"), &[], Vec::new(), true).unwrap();
    remove_unfinished();
    let left = names(target.parent().unwrap());
    assert_eq!(left, ["model"], "cleared while the writers live");
    fill_the_rest(&mut writer);
    assert!(writer.commit().is_err());
    assert!(matches!(gguf.commit(), Err(CheckpointError::Ending { .. })));
    assert!(matches!(create(&target, true), Err(CheckpointError::Ending { .. })));
    drop(claim);
    assert_eq!(names(target.parent().unwrap()), ["model"]);
}

fn fill_the_rest(writer: &mut transmla_checkpoint::CheckpointWriter) {
    writer.write("b", &[2.0; 4]).unwrap();
}

#[test]
fn what_is_unfinished_can_be_removed_at_once() {
    let place = Folder::new();
    place.put_old_target("old");
    assert_ok(start("child_that_ends_at_once", &place.target(), &[]));
    assert_eq!(place.names(), ["model"]);
    assert_eq!(crate::fixture::text(&place.target()), "old");
}

/// Whether this system lets the tests mount something for themselves.
#[cfg(target_os = "linux")]
fn can_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-rm", "mount", "-t", "tmpfs", "none", "/tmp"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "started by the test below"]
fn child_that_writes_into_a_mount_point() {
    let Some(target) = target() else { return };
    let place = Place::of(&target).unwrap();
    assert!(place.is_inside());
    assert!(place.free_bytes().is_some());
    fs::create_dir(target.join("lost+found")).unwrap();
    fs::write(target.join("config.json"), "old").unwrap();
    fs::write(target.join("old.bin"), "old").unwrap();
    assert!(create(&target, false).is_err(), "it is there");
    let claim = Claim::of(&target).unwrap();
    let mut writer = create(&target, true).unwrap();
    assert!(writer.work_folder().starts_with(&target));
    fill(&mut writer);
    for name in ["config.json", "transmla.toml"] {
        writer.write_file(name, b"new").unwrap();
    }
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"old");
    writer.commit().unwrap();
    drop(claim);
    assert_eq!(
        names(&target),
        ["config.json", "lost+found", "model.safetensors", "transmla.toml"]
    );
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"new");
    assert_eq!(names(target.parent().unwrap()), ["model"]);
}

/// A mount point cannot be renamed: it is filled file by file.
#[cfg(target_os = "linux")]
#[test]
fn a_mount_point_is_written_into() {
    if !can_mount() {
        eprintln!("this system lets nobody mount anything: not tested");
        return;
    }
    let place = Folder::new();
    fs::create_dir(place.target()).unwrap();
    // The second is a part of the same file system: its device number is that of its parent.
    let elsewhere = Folder::new();
    for mount in [
        "-t tmpfs -o size=1m none".to_owned(),
        format!("--bind {}", elsewhere.path().display()),
    ] {
        let script = format!(r#"mount {mount} "$TRANSMLA_TEST_TARGET" && exec "$0" "$@""#);
        let wrapper = ["unshare", "-rm", "bash", "-c", &script];
        assert_ok(start("child_that_writes_into_a_mount_point", &place.target(), &wrapper));
        assert_eq!(names(&place.target()), Vec::<String>::new());
    }
    assert_eq!(names(elsewhere.path()).len(), 4);
}
