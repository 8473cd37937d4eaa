//! What processes leave that were killed, and what is left alone because its process lives.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::fixture::{Place, create, fill, names, put_folder, text};

const TARGET: &str = "TRANSMLA_TEST_TARGET";

/// Not a test of its own: the process that others start and kill in the middle of writing.
#[test]
#[ignore = "started by the tests below"]
fn child_that_writes_and_waits() {
    let Some(target) = std::env::var_os(TARGET) else {
        return;
    };
    let mut writer = create(target.as_ref(), true).unwrap();
    writer.write("a", &[1.0; 6]).unwrap();
    println!("\nwriting");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// A living process that has a folder for this target open.
fn start_writing(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::child_that_writes_and_waits",
            "--ignored",
            "--nocapture",
        ])
        .env(TARGET, place.target())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "writing"));
    child
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_folder_of_a_killed_process_is_removed_by_the_next_writer() {
    let place = Place::new();
    place.put_old_target("old");
    let child = start_writing(&place);
    let leftover = format!(".model.partial-{}", child.id());
    kill(child);
    assert_eq!(
        place.names(),
        [leftover.clone(), format!("{leftover}.lock"), "model".into()]
    );
    assert_eq!(text(&place.target()), "old");

    let mut writer = create(&place.target(), true).unwrap();
    assert!(!place.names().contains(&leftover));
    fill(&mut writer);
    writer.commit().unwrap();
    assert_eq!(place.names(), ["model"]);
    assert_eq!(names(&place.target()), ["model.safetensors"]);
}

#[test]
fn the_folder_of_a_living_process_is_left_alone() {
    let place = Place::new();
    let child = start_writing(&place);
    let in_use = place.path().join(format!(".model.partial-{}", child.id()));
    let mut writer = create(&place.target(), false).unwrap();
    fill(&mut writer);
    writer.commit().unwrap();
    let found = names(&in_use);
    kill(child);
    assert_eq!(found, ["model.safetensors"]);
    assert_eq!(names(&place.target()), ["model.safetensors"]);
}

#[test]
fn other_targets_leftovers_are_left_alone() {
    let place = Place::new();
    let others = [
        ".other.partial-7",
        ".model.partial-7.partial-8",
        ".model.partial-x",
        "model.partial-7",
        ".model.old",
    ];
    for name in others {
        put_folder(&place.path().join(name), name);
    }
    drop(create(&place.target(), true).unwrap());
    let mut expected: Vec<String> = others.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(place.names(), expected);
}

/// As a process leaves it that is killed between the two renames of a replacing commit.
fn put_interrupted_commit(place: &Place) {
    put_folder(&place.path().join(".model.partial-7.old"), "old");
    put_folder(&place.path().join(".model.partial-7"), "new");
    fs::write(place.path().join(".model.partial-7.lock"), "").unwrap();
}

#[test]
fn a_target_that_was_moved_aside_comes_back() {
    let place = Place::new();
    put_interrupted_commit(&place);
    // It is there again, so that it is not replaced without being asked.
    let message = create(&place.target(), false).unwrap_err().to_string();
    assert!(message.contains("already exists"), "{message}");
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

#[test]
fn a_target_that_was_moved_aside_is_removed_once_there_is_a_new_one() {
    let place = Place::new();
    put_folder(&place.path().join(".model.partial-7.old"), "old");
    place.put_old_target("new");
    drop(create(&place.target(), true).unwrap());
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "new".to_owned())
    );
}

#[test]
fn a_commit_that_is_under_way_is_left_alone() {
    let place = Place::new();
    put_interrupted_commit(&place);
    let lock = File::open(place.path().join(".model.partial-7.lock")).unwrap();
    lock.try_lock().unwrap();
    let writer = create(&place.target(), false).unwrap();
    assert_eq!(text(&place.path().join(".model.partial-7.old")), "old");
    assert_eq!(text(&place.path().join(".model.partial-7")), "new");
    drop(writer);
    drop(lock);
    assert!(create(&place.target(), false).is_err(), "the old target is back");
    assert_eq!(place.names(), ["model"]);
}

#[test]
fn a_writer_has_a_name_of_its_own_even_if_its_process_id_is_taken() {
    let place = Place::new();
    let name = format!(".model.partial-{}", std::process::id());
    put_folder(&place.path().join(&name), "of another container");
    let lock = File::create(place.path().join(format!("{name}.lock"))).unwrap();
    lock.try_lock().unwrap();
    let writer = create(&place.target(), false).unwrap();
    assert_eq!(writer.work_folder(), place.path().join(format!("{name}-2")));
    drop(writer);
    assert_eq!(text(&place.path().join(&name)), "of another container");
}
