//! A writer used against its plan, or with numbers that cannot be stored.

use transmla_checkpoint::{CheckpointError, CheckpointWriter, StorageDtype, TensorSpec};

use crate::fixture::{Place, create, fill};

fn assert_write_error(result: Result<(), CheckpointError>, tensor: &str, problem: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, CheckpointError::Write { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(tensor) && message.contains(problem), "{message}");
}

#[test]
fn a_tensor_that_is_not_planned() {
    let place = Place::new();
    let mut writer = create(&place.target(), false).unwrap();
    assert_write_error(writer.write("c", &[1.0]), "c", "not in the plan");
    assert_write_error(writer.append("c", &[1.0]), "c", "not in the plan");
}

#[test]
fn a_tensor_written_twice() {
    let place = Place::new();
    let mut writer = create(&place.target(), false).unwrap();
    writer.write("b", &[1.0; 4]).unwrap();
    assert_write_error(writer.write("b", &[1.0; 4]), "b", "twice");
    assert_write_error(writer.append("b", &[1.0]), "b", "more than the planned 4");
}

#[test]
fn a_tensor_of_another_size() {
    let place = Place::new();
    let mut writer = create(&place.target(), false).unwrap();
    assert_write_error(writer.write("b", &[1.0; 5]), "b", "5 values where the plan has 4");
    assert_write_error(writer.write("b", &[1.0; 3]), "b", "3 values where the plan has 4");
    writer.append("b", &[1.0; 3]).unwrap();
    assert_write_error(writer.append("b", &[1.0; 2]), "b", "more than the planned 4");
    // After a refusal the writer still works.
    writer.append("b", &[1.0]).unwrap();
    writer.write("a", &[1.0; 6]).unwrap();
    writer.commit().unwrap();
}

#[test]
fn a_tensor_that_was_not_finished() {
    let place = Place::new();
    let mut writer = create(&place.target(), false).unwrap();
    writer.write("a", &[1.0; 6]).unwrap();
    writer.append("b", &[1.0; 3]).unwrap();
    assert_write_error(writer.finish(), "b", "not written completely");
    assert_write_error(writer.commit().map(|_| ()), "b", "not written completely");
    assert!(place.names().is_empty());
}

#[test]
fn a_tensor_planned_twice() {
    let place = Place::new();
    for max_shard_bytes in [0, u64::MAX] {
        let specs = [TensorSpec::new("a", [2]), TensorSpec::new("a", [3])];
        let result = CheckpointWriter::create(&place.target(), &specs, StorageDtype::F32, max_shard_bytes, false);
        assert_write_error(result.map(|_| ()), "a", "planned twice");
        assert!(place.names().is_empty());
    }
}

#[test]
fn a_tensor_that_fits_no_file() {
    let place = Place::new();
    for shape in [vec![usize::MAX], vec![1 << 40, 1 << 40], vec![1 << 31, 1 << 31]] {
        let specs = [TensorSpec::new("small", [2]), TensorSpec::new("large", shape)];
        let result = CheckpointWriter::create(&place.target(), &specs, StorageDtype::F32, u64::MAX, false);
        assert_write_error(result.map(|_| ()), "large", "fits no file");
        assert!(place.names().is_empty());
    }
}

#[test]
fn not_a_number_names_tensor_and_element() {
    let place = Place::new();
    let mut writer = create(&place.target(), false).unwrap();
    writer.append("a", &[0.0; 2]).unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        match writer.append("a", &[0.0, value]).unwrap_err() {
            CheckpointError::NonFinite { name, index, .. } => assert_eq!((name.as_str(), index), ("a", 3)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_number_too_large_for_half_precision() {
    let place = Place::new();
    let specs = [TensorSpec::new("w", [2])];
    let mut writer = CheckpointWriter::create(&place.target(), &specs, StorageDtype::F16, u64::MAX, false).unwrap();
    writer.append("w", &[65504.0]).unwrap();
    let message = writer.append("w", &[65520.0]).unwrap_err().to_string();
    for part in ["w", "65520", "float16", "bf16", "`dtype`"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_small_file_outside_the_folder() {
    let place = Place::new();
    let writer = create(&place.target(), false).unwrap();
    // One folder below is as far as it goes.
    for name in [
        "../escaped",
        "/tmp/escaped",
        "sub/../escaped",
        "sub/..",
        "sub//file",
        "sub/sub/file",
        "..",
        ".",
        "",
        "file/",
    ] {
        assert_write_error(writer.write_file(name, b"text"), name, "plain file name");
    }
    drop(writer);
    assert!(place.names().is_empty());
}

#[test]
fn targets_that_are_no_names() {
    for target in ["/", "..", "."] {
        assert!(create(std::path::Path::new(target), true).is_err(), "{target}");
    }
}

#[test]
fn a_parent_that_is_a_file() {
    let place = Place::new();
    std::fs::write(place.path().join("file"), "text").unwrap();
    let message = create(&place.path().join("file/model"), false).unwrap_err().to_string();
    assert!(
        message.contains("cannot create") && message.contains("file"),
        "{message}"
    );
    assert_eq!(place.names(), ["file"]);
}

#[test]
fn two_writers_of_one_target_do_not_meet() {
    let place = Place::new();
    let mut first = create(&place.target(), false).unwrap();
    let mut second = create(&place.target(), false).unwrap();
    assert_ne!(first.work_folder(), second.work_folder());
    fill(&mut first);
    fill(&mut second);
    first.commit().unwrap();
    // The second was not asked to replace what has come to exist since.
    let message = second.commit().unwrap_err().to_string();
    assert!(message.contains("already exists"), "{message}");
    assert_eq!(place.names(), ["model"]);
}
