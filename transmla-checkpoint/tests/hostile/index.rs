//! Shard indexes that contradict their shards.

use serde_json::{Map, Value, json};

use crate::fixture::{Entry, Folder, Model, assert_says, read_everything, safetensors};

const INDEX: &str = "model.safetensors.index.json";

/// A valid model in two shards, and its weight map.
fn sharded() -> (Folder, Map<String, Value>) {
    let model = Model::valid();
    let (first, second) = model.tensors.split_at(8);
    let folder = Folder::empty();
    folder.put("config.json", Value::Object(model.config.clone()).to_string());
    let mut map = Map::new();
    for (name, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        folder.put(name, safetensors(tensors));
        map.extend(tensors.iter().map(|t| (t.name.clone(), json!(name))));
    }
    put_index(&folder, &map);
    (folder, map)
}

fn put_index(folder: &Folder, map: &Map<String, Value>) {
    folder.put(INDEX, json!({"weight_map": map}).to_string());
}

#[test]
fn the_sharded_fixture_itself_is_valid() {
    read_everything(sharded().0.path()).unwrap();
}

#[test]
fn a_missing_shard() {
    let (folder, _) = sharded();
    std::fs::remove_file(folder.file("b.safetensors")).unwrap();
    assert_says(&folder.error(), &["b.safetensors", "missing", INDEX, "13 tensors"]);
}

#[test]
fn a_shard_outside_the_folder() {
    for name in [
        "../b.safetensors",
        "/etc/passwd",
        "..",
        ".",
        "",
        "sub/b.safetensors",
        "b.safetensors/",
        "./b.safetensors",
    ] {
        let (folder, mut map) = sharded();
        map.insert("model.norm.weight".into(), json!(name));
        put_index(&folder, &map);
        assert_says(&folder.error(), &[INDEX, &format!("{name:?}"), "not a plain file name"]);
    }
}

#[test]
fn a_shard_name_with_a_zero_byte() {
    let (folder, mut map) = sharded();
    map.insert("model.norm.weight".into(), json!("b\u{0}.safetensors"));
    put_index(&folder, &map);
    assert_says(&folder.error(), &["missing"]);
}

#[test]
fn a_tensor_said_to_be_in_another_shard() {
    let (folder, mut map) = sharded();
    assert_eq!(map["model.norm.weight"], "b.safetensors");
    map.insert("model.norm.weight".into(), json!("a.safetensors"));
    put_index(&folder, &map);
    // Headers count, as in transformers.
    read_everything(folder.path()).unwrap();
}

#[test]
fn a_tensor_that_no_shard_has() {
    let (folder, mut map) = sharded();
    map.insert("model.invented.weight".into(), json!("a.safetensors"));
    put_index(&folder, &map);
    // An index that outlived what was dropped from the shards; what is needed is still missed.
    read_everything(folder.path()).unwrap();
    let mut second: Vec<Entry> = Model::valid().tensors.split_off(8);
    second.retain(|entry| entry.name != "model.norm.weight");
    folder.put("b.safetensors", safetensors(&second));
    assert_says(&folder.error(), &["model.norm.weight", "not in"]);
}

#[test]
fn a_tensor_in_two_shards() {
    let (folder, _) = sharded();
    let mut second: Vec<Entry> = Model::valid().tensors.split_off(8);
    second.push(Model::valid().remove("model.embed_tokens.weight"));
    folder.put("b.safetensors", safetensors(&second));
    // The same twice is no contradiction.
    read_everything(folder.path()).unwrap();
    second.last_mut().unwrap().bytes[0] ^= 1;
    folder.put("b.safetensors", safetensors(&second));
    let error = folder.error();
    assert_says(
        &error,
        &["b.safetensors", "model.embed_tokens.weight", "two shards", "differ"],
    );
}

#[test]
fn a_truncated_shard_is_named() {
    let (folder, _) = sharded();
    let whole = std::fs::read(folder.file("b.safetensors")).unwrap();
    folder.put("b.safetensors", &whole[..whole.len() - 3]);
    assert_says(&folder.error(), &["b.safetensors", "not a valid"]);
}

#[test]
fn an_index_that_is_not_one() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": []}"#,
        r#"{"weight_map": {"model.norm.weight": 5}}"#,
        r#"{"weight_map": {"model.norm.weight": null}}"#,
    ] {
        let (folder, _) = sharded();
        folder.put(INDEX, text);
        assert_says(&folder.error(), &[INDEX]);
    }
}

#[test]
fn a_single_file_is_read_in_spite_of_a_left_over_index() {
    let folder = Model::valid().save();
    folder.put(INDEX, json!({"weight_map": {"old": "gone.safetensors"}}).to_string());
    read_everything(folder.path()).unwrap();
}
