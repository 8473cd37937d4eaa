//! A target that is already there.

use crate::fixture::{Place, create, fill, names, text};

#[test]
fn is_refused_and_untouched_without_replace() {
    let place = Place::new();
    place.put_old_target("old");
    let message = create(&place.target(), false).unwrap_err().to_string();
    assert!(
        message.contains("model") && message.contains("already exists"),
        "{message}"
    );
    assert_eq!(place.names(), ["model"]);
    assert_eq!(text(&place.target()), "old");
}

#[test]
fn is_there_until_the_commit_and_gone_after_it() {
    let place = Place::new();
    place.put_old_target("old");
    let mut writer = create(&place.target(), true).unwrap();
    fill(&mut writer);
    writer.finish().unwrap();
    assert_eq!(text(&place.target()), "old");
    writer.commit().unwrap();
    assert_eq!(place.names(), ["model"]);
    assert_eq!(names(&place.target()), ["model.safetensors"]);
}

#[test]
fn stays_when_the_writer_is_dropped_or_fails() {
    let place = Place::new();
    place.put_old_target("old");
    let mut writer = create(&place.target(), true).unwrap();
    writer.write("a", &[1.0; 6]).unwrap();
    drop(writer);
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );

    let writer = create(&place.target(), true).unwrap();
    assert!(writer.commit().is_err(), "nothing was written");
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

#[test]
fn stays_when_a_panic_unwinds_the_writer() {
    let place = Place::new();
    place.put_old_target("old");
    let target = place.target();
    let result = std::panic::catch_unwind(|| {
        let _writer = create(&target, true).unwrap();
        std::panic::resume_unwind(Box::new("a bug elsewhere"));
    });
    assert!(result.is_err());
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

#[test]
fn comes_back_when_the_new_folder_cannot_be_renamed() {
    let place = Place::new();
    place.put_old_target("old");
    let mut writer = create(&place.target(), true).unwrap();
    fill(&mut writer);
    // Somebody removes the unfinished folder: its shards are still open, but there is nothing to rename.
    std::fs::remove_dir_all(writer.work_folder()).unwrap();
    let message = writer.commit().unwrap_err().to_string();
    assert!(message.contains("cannot rename into place"), "{message}");
    assert_eq!(
        (place.names(), text(&place.target())),
        (vec!["model".to_owned()], "old".to_owned())
    );
}

/// The first rename of a replacing commit takes away what such a path leads through.
#[test]
fn may_be_named_by_a_path_through_itself() {
    let place = Place::new();
    for through in ["model/../model", "model/.", "model/sub/../../model"] {
        place.put_old_target("old");
        std::fs::create_dir(place.target().join("sub")).unwrap();
        let mut writer = create(&place.path().join(through), true).unwrap();
        fill(&mut writer);
        writer.commit().unwrap();
        assert_eq!(place.names(), ["model"], "{through}");
        assert_eq!(names(&place.target()), ["model.safetensors"], "{through}");
        std::fs::remove_dir_all(place.target()).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn may_be_named_by_a_link_to_what_it_is_in() {
    let place = Place::new();
    place.put_old_target("old");
    std::os::unix::fs::symlink("model/..", place.path().join("around")).unwrap();
    let mut writer = create(&place.path().join("around/model"), true).unwrap();
    fill(&mut writer);
    writer.commit().unwrap();
    assert_eq!(place.names(), ["around", "model"]);
    assert_eq!(names(&place.target()), ["model.safetensors"]);
}

#[test]
fn may_be_a_file() {
    let place = Place::new();
    std::fs::write(place.target(), "a file").unwrap();
    assert!(create(&place.target(), false).is_err());
    let mut writer = create(&place.target(), true).unwrap();
    fill(&mut writer);
    writer.commit().unwrap();
    assert_eq!(place.names(), ["model"]);
    assert_eq!(names(&place.target()), ["model.safetensors"]);
}

#[cfg(unix)]
#[test]
fn may_be_a_link_whose_other_end_is_kept() {
    let place = Place::new();
    let elsewhere = Place::new();
    elsewhere.put_old_target("elsewhere");
    for end in [elsewhere.target(), elsewhere.path().join("dangling")] {
        std::os::unix::fs::symlink(&end, place.target()).unwrap();
        assert!(create(&place.target(), false).is_err());
        let mut writer = create(&place.target(), true).unwrap();
        fill(&mut writer);
        writer.commit().unwrap();
        assert_eq!(names(&place.target()), ["model.safetensors"]);
        assert_eq!(text(&elsewhere.target()), "elsewhere");
        std::fs::remove_dir_all(place.target()).unwrap();
    }
    assert_eq!(elsewhere.names(), ["model"]);
}
