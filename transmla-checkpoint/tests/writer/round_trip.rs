//! What is written is what is read, however it is cut into shards and pieces.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;
use transmla_checkpoint::{Checkpoint, CheckpointWriter, StorageDtype, TensorSpec};

use crate::fixture::{Place, names};

/// Numbers that all three formats hold exactly.
fn value(index: usize, tensor: usize) -> f32 {
    ((index * 5 + tensor * 3) % 17) as f32 * 0.25 - 2.0
}

fn shapes() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(0usize..6, 1..4), 1..9)
}

fn dtype() -> impl Strategy<Value = StorageDtype> {
    prop::sample::select(vec![StorageDtype::F32, StorageDtype::F16, StorageDtype::Bf16])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn reads_what_was_written(
        shapes in shapes(),
        dtype in dtype(),
        max_shard_bytes in 0u64..600,
        piece in 1usize..40,
        order in any::<u64>(),
    ) {
        let place = Place::new();
        let specs: Vec<TensorSpec> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| TensorSpec::new(format!("t{i}"), shape.clone()))
            .collect();
        let values: Vec<Vec<f32>> = specs
            .iter()
            .enumerate()
            .map(|(t, spec)| (0..spec.elements()).map(|i| value(i, t)).collect())
            .collect();
        let mut writer = CheckpointWriter::create(&place.target(), &specs, dtype, max_shard_bytes, false).unwrap();
        // In any order, and every other tensor piece by piece.
        let mut turn: Vec<usize> = (0..specs.len()).collect();
        turn.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
        for i in turn {
            if i % 2 == 0 {
                writer.write(&specs[i].name, &values[i]).unwrap();
            } else {
                for part in values[i].chunks(piece) {
                    writer.append(&specs[i].name, part).unwrap();
                }
            }
        }
        writer.commit().unwrap();

        prop_assert_eq!(place.names(), ["model"]);
        let checkpoint = Checkpoint::open(&place.target()).unwrap();
        prop_assert_eq!(checkpoint.names().count(), specs.len());
        for (spec, expected) in specs.iter().zip(&values) {
            prop_assert_eq!(&checkpoint.values(&spec.name, &spec.shape).unwrap(), expected);
        }
        check_shards(&place, &specs, dtype, max_shard_bytes)?;
    }
}

/// The index names every tensor and every shard, and no shard with more than one tensor is larger than asked for.
fn check_shards(
    place: &Place,
    specs: &[TensorSpec],
    dtype: StorageDtype,
    max_shard_bytes: u64,
) -> Result<(), TestCaseError> {
    let bytes = |spec: &TensorSpec| (spec.elements() * dtype.bytes()) as u64;
    let total: u64 = specs.iter().map(bytes).sum();
    let files = names(&place.target());
    if files == ["model.safetensors"] {
        prop_assert!(total <= max_shard_bytes || specs.len() == 1);
        return Ok(());
    }
    let index = place.target().join("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&std::fs::read(index).unwrap()).unwrap();
    prop_assert_eq!(&index["metadata"]["total_size"], &Value::from(total));
    let map = index["weight_map"].as_object().unwrap();
    let in_map: BTreeSet<&str> = map.keys().map(String::as_str).collect();
    let planned: BTreeSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
    prop_assert_eq!(in_map, planned);
    let mut shards: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    for shard in &shards {
        let members: Vec<&TensorSpec> = specs.iter().filter(|s| map[&s.name] == **shard).collect();
        prop_assert!(members.len() == 1 || members.iter().map(|s| bytes(s)).sum::<u64>() <= max_shard_bytes);
    }
    shards.insert("model.safetensors.index.json");
    prop_assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), shards);
    Ok(())
}

#[test]
fn copying_multiplies_and_converts() {
    let place = Place::new();
    let specs = [TensorSpec::new("w", [2, 3])];
    let numbers = [1.0, -2.0, 0.5, 3.0, 0.0, -0.25];
    let mut writer = CheckpointWriter::create(&place.target(), &specs, StorageDtype::F32, u64::MAX, false).unwrap();
    writer.write("w", &numbers).unwrap();
    let source = Checkpoint::open(&writer.commit().unwrap()).unwrap();

    let copy = place.path().join("copy");
    let mut writer = CheckpointWriter::create(&copy, &specs, StorageDtype::Bf16, u64::MAX, false).unwrap();
    writer.copy(&source, "w", -4.0).unwrap();
    let copy = Checkpoint::open(&writer.commit().unwrap()).unwrap();
    assert_eq!(copy.values("w", &[2, 3]).unwrap(), numbers.map(|v| v * -4.0));
    assert_eq!(copy.total_bytes(), 12);
}

#[test]
fn small_files_go_with_the_shards() {
    let place = Place::new();
    let mut writer = crate::fixture::create(&place.target(), false).unwrap();
    crate::fixture::fill(&mut writer);
    writer.write_file("config.json", b"{}").unwrap();
    writer.write_file("config.json", b"{\"a\": 1}").unwrap();
    assert_eq!(writer.commit().unwrap(), place.target());
    assert_eq!(names(&place.target()), ["config.json", "model.safetensors"]);
    assert_eq!(
        std::fs::read(place.target().join("config.json")).unwrap(),
        b"{\"a\": 1}"
    );
}

#[test]
fn a_target_with_missing_parents_and_dots_in_its_name() {
    let place = Place::new();
    let target = place.path().join("some/parents/llama-3.2-1b.v2");
    let mut writer = crate::fixture::create(&target, false).unwrap();
    crate::fixture::fill(&mut writer);
    writer.commit().unwrap();
    assert_eq!(names(&target), ["model.safetensors"]);
    assert_eq!(names(target.parent().unwrap()), ["llama-3.2-1b.v2"]);
}
