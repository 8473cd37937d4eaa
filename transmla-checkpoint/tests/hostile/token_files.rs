//! Files of token ids and logits.

use transmla_checkpoint::checkpoint::{Checkpoint, read_input_ids, write_logits};

use crate::fixture::{Entry, Folder, assert_says, safetensors, with_header};

fn ids(dtype: &'static str, shape: &[u64], bytes: Vec<u8>) -> Entry {
    Entry {
        name: "input_ids".into(),
        dtype,
        shape: shape.to_vec(),
        bytes,
    }
}

fn error_of(contents: Vec<u8>) -> String {
    let folder = Folder::empty();
    folder.put("tokens.safetensors", contents);
    let error = read_input_ids(&folder.file("tokens.safetensors")).unwrap_err();
    assert_says(&error.to_string(), &["tokens.safetensors"]);
    error.to_string()
}

#[test]
fn i32_and_i64_are_read() {
    let folder = Folder::empty();
    let narrow: Vec<u8> = [1i32, 2, 3, 4, 5, 70_000]
        .iter()
        .flat_map(|i| i.to_le_bytes())
        .collect();
    let wide: Vec<u8> = [1i64, 2, 3, 4, 5, 70_000]
        .iter()
        .flat_map(|i| i.to_le_bytes())
        .collect();
    for (dtype, bytes) in [("I32", narrow), ("I64", wide)] {
        folder.put("tokens.safetensors", safetensors(&[ids(dtype, &[2, 3], bytes)]));
        let tokens = read_input_ids(&folder.file("tokens.safetensors")).unwrap();
        assert_eq!((tokens.batch(), tokens.sequence()), (2, 3));
        assert_eq!(tokens.ids(), [1, 2, 3, 4, 5, 70_000]);
    }
}

#[test]
fn no_such_file() {
    let error = read_input_ids(std::path::Path::new("/nowhere/tokens.safetensors")).unwrap_err();
    assert_says(&error.to_string(), &["/nowhere/tokens.safetensors"]);
}

#[test]
fn not_safetensors() {
    assert_says(&error_of(Vec::new()), &["not a valid safetensors file"]);
    assert_says(
        &error_of(b"1 2 3 4 5 6 7 8 9".to_vec()),
        &["not a valid safetensors file"],
    );
    assert_says(&error_of(with_header("{", &[])), &["not a valid safetensors file"]);
}

#[test]
fn another_tensor() {
    let mut tensor = ids("I64", &[1, 1], vec![0; 8]);
    tensor.name = "tokens".into();
    assert_says(&error_of(safetensors(&[tensor])), &["input_ids", "tokens"]);
}

#[test]
fn another_rank() {
    for shape in [&[2][..], &[], &[1, 2, 1]] {
        let elements: u64 = shape.iter().product();
        let file = safetensors(&[ids("I64", shape, vec![0; 8 * elements as usize])]);
        assert_says(
            &error_of(file),
            &["input_ids", "[batch, sequence]", &format!("{shape:?}")],
        );
    }
}

#[test]
fn nothing_in_it() {
    for shape in [&[0, 5][..], &[5, 0]] {
        let file = safetensors(&[ids("I64", shape, Vec::new())]);
        assert_says(&error_of(file), &["input_ids", "no token"]);
    }
}

#[test]
fn another_number_format() {
    for (dtype, bytes) in [("F32", 4), ("U8", 1), ("I16", 2)] {
        let file = safetensors(&[ids(dtype, &[1, 2], vec![0; 2 * bytes])]);
        let folder = Folder::empty();
        folder.put("tokens.safetensors", file);
        let error = read_input_ids(&folder.file("tokens.safetensors")).unwrap_err();
        assert_says(&error.to_string(), &["input_ids", dtype, "I64, I32"]);
    }
}

#[test]
fn a_negative_id() {
    let bytes = [5i64, -100].iter().flat_map(|i| i.to_le_bytes()).collect();
    assert_says(&error_of(safetensors(&[ids("I64", &[1, 2], bytes)])), &["-100"]);
}

#[test]
fn logits_are_written_whole_or_not_at_all() {
    let folder = Folder::empty();
    let path = folder.file("logits.safetensors");
    write_logits(&path, &[0.5, -1.0, 2.0, 3.0], [1, 2, 2]).unwrap();
    let file = Checkpoint::open_file(&path).unwrap();
    assert_eq!(file.values("logits", &[1, 2, 2]).unwrap(), [0.5, -1.0, 2.0, 3.0]);

    // A length that is not the shape's, and a name that is taken by a folder.
    assert!(write_logits(&path, &[0.5], [1, 2, 2]).is_err());
    assert_eq!(file.values("logits", &[1, 2, 2]).unwrap(), [0.5, -1.0, 2.0, 3.0]);
    let taken = folder.file("taken");
    std::fs::create_dir(&taken).unwrap();
    assert_says(
        &write_logits(&taken, &[0.5], [1, 1, 1]).unwrap_err().to_string(),
        &["taken"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}
