//! Safetensors files whose header and length do not fit together.

use crate::fixture::{Folder, Model, assert_says, read_everything, safetensors, with_header};

fn error_of(file: Vec<u8>) -> String {
    let folder = Model::valid().save();
    folder.put("model.safetensors", file);
    folder.error()
}

/// One tensor with this description and 16 bytes of data.
fn error_of_tensor(description: &str) -> String {
    error_of(with_header(&format!(r#"{{"t":{description}}}"#), &[0; 16]))
}

#[test]
fn the_fixture_itself_is_valid() {
    read_everything(Model::valid().save().path()).unwrap();
}

#[test]
fn a_file_cut_off_anywhere() {
    let whole = safetensors(&Model::valid().tensors);
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for length in [0, 1, 7, 8, 9, header - 1, header, header + 1, whole.len() - 1] {
        let error = error_of(whole[..length].to_vec());
        assert_says(
            &error,
            &["model.safetensors", "not a valid", &format!("{length} bytes")],
        );
    }
}

#[test]
fn a_file_with_more_than_its_header_says() {
    let mut longer = safetensors(&Model::valid().tensors);
    longer.push(0);
    assert_says(&error_of(longer), &["model.safetensors", "not a valid"]);
}

#[test]
fn a_header_longer_than_the_file() {
    let mut file = with_header("{}", &[]);
    file[..8].copy_from_slice(&1000u64.to_le_bytes());
    assert_says(&error_of(file), &["model.safetensors", "not a valid"]);
}

#[test]
fn a_header_length_that_overflows() {
    for length in [1 << 63, u64::MAX, u64::MAX - 7] {
        let mut file = with_header("{}", &[0; 16]);
        file[..8].copy_from_slice(&u64::to_le_bytes(length));
        assert_says(&error_of(file), &["model.safetensors", "not a valid"]);
    }
}

#[test]
fn a_header_that_is_not_json() {
    for header in ["", "{", "[]", "null", "\u{0}\u{0}", r#"{"t":5}"#, "pickled"] {
        assert_says(&error_of(with_header(header, &[0; 16])), &["model.safetensors"]);
    }
    let not_utf8 = [&2u64.to_le_bytes()[..], &[0xff, 0xfe], &[0; 16]].concat();
    assert_says(&error_of(not_utf8), &["model.safetensors", "not a valid"]);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_says(
        &error_of(with_header(&deep, &[])),
        &["model.safetensors", "not a valid"],
    );
}

#[test]
fn overlapping_tensors() {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,16]}}"#;
    assert_says(
        &error_of(with_header(header, &[0; 16])),
        &["model.safetensors", "not a valid"],
    );
}

#[test]
fn a_gap_between_tensors() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
    assert_says(
        &error_of(with_header(header, &[0; 16])),
        &["model.safetensors", "not a valid"],
    );
}

#[test]
fn offsets_that_are_huge_backwards_or_not_numbers() {
    for offsets in [
        "[0,18446744073709551615]",
        "[18446744073709551600,18446744073709551615]",
        "[9223372036854775808,16]",
        "[16,0]",
        "[-1,16]",
        "[0,18446744073709551616]",
        "[0]",
        "[0,16.5]",
    ] {
        let error = error_of_tensor(&format!(r#"{{"dtype":"F32","shape":[4],"data_offsets":{offsets}}}"#));
        assert_says(&error, &["model.safetensors", "not a valid"]);
    }
}

#[test]
fn shapes_whose_product_overflows() {
    for shape in [
        "[4294967296,4294967296,4294967296]",
        "[18446744073709551615]",
        "[9223372036854775808,2]",
        "[-4]",
    ] {
        let error = error_of_tensor(&format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,16]}}"#));
        assert_says(&error, &["model.safetensors", "not a valid"]);
    }
}

#[test]
fn a_dtype_that_does_not_exist() {
    let error = error_of_tensor(r#"{"dtype":"F1024","shape":[4],"data_offsets":[0,16]}"#);
    assert_says(&error, &["model.safetensors", "F1024"]);
}

#[test]
fn a_git_lfs_pointer_in_place_of_the_weights() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 269060552\n";
    assert_says(
        &error_of(pointer.into()),
        &["model.safetensors", "not a valid", "download"],
    );
}

#[test]
fn no_weights_at_all() {
    let folder = Folder::empty();
    folder.put(
        "config.json",
        serde_json::Value::Object(Model::valid().config).to_string(),
    );
    assert_says(&folder.error(), &["model.safetensors", "missing"]);
}

#[test]
fn pickles_only() {
    let folder = Folder::empty();
    folder.put(
        "config.json",
        serde_json::Value::Object(Model::valid().config).to_string(),
    );
    folder.put("pytorch_model.bin", [0x80, 2]);
    assert_says(&folder.error(), &["model.safetensors", "pickles", "safe_serialization"]);
}

#[cfg(unix)]
#[test]
fn a_link_to_weights_that_are_gone() {
    let folder = Folder::empty();
    folder.put(
        "config.json",
        serde_json::Value::Object(Model::valid().config).to_string(),
    );
    std::os::unix::fs::symlink("../../blobs/gone", folder.file("model.safetensors")).unwrap();
    assert_says(&folder.error(), &["model.safetensors", "link", "download"]);
}

#[test]
fn a_folder_in_place_of_the_weights() {
    let folder = Folder::empty();
    folder.put(
        "config.json",
        serde_json::Value::Object(Model::valid().config).to_string(),
    );
    std::fs::create_dir(folder.file("model.safetensors")).unwrap();
    assert_says(&folder.error(), &["model.safetensors", "missing"]);
}

#[test]
fn no_such_folder() {
    let error = transmla_checkpoint::Checkpoint::open(std::path::Path::new("/nowhere/at/all")).unwrap_err();
    assert_says(&error.to_string(), &["there is no folder /nowhere/at/all"]);
}
