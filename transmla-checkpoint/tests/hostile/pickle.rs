//! Files that torch has saved: what they hold, and what no state dict of weights holds.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use transmla_checkpoint::Checkpoint;

use crate::fixture::{Folder, Model, assert_says, read_everything};

fn saved(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/hostile/pickles")
            .join(name),
    )
    .unwrap()
}

fn folder(contents: impl AsRef<[u8]>) -> Folder {
    let folder = Folder::empty();
    folder.put("config.json", Value::Object(Model::valid().config).to_string());
    folder.put("pytorch_model.bin", contents);
    folder
}

fn error(contents: impl AsRef<[u8]>) -> String {
    Checkpoint::open(folder(contents).path())
        .expect_err("it was opened")
        .to_string()
}

/// A zip archive of stored files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (name, contents) in files {
        let (at, size, length) = (out.len() as u32, contents.len() as u32, name.len() as u16);
        // Version, flags, method, time, date, checksum; sizes, lengths of the name and of what is extra.
        let common = [
            &[0; 14][..],
            &size.to_le_bytes(),
            &size.to_le_bytes(),
            &length.to_le_bytes(),
            &[0; 2],
        ]
        .concat();
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), contents].concat());
        let place = [&[0; 10][..], &at.to_le_bytes()].concat();
        list.extend([b"PK\x01\x02\0\0", &common[..], &place, name.as_bytes()].concat());
    }
    let (count, at) = ((files.len() as u16).to_le_bytes(), (out.len() as u32).to_le_bytes());
    let length = (list.len() as u32).to_le_bytes();
    out.extend(list);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &length, &at, &[0; 2]].concat());
    out
}

/// Instructions: a name, a text, an integer.
fn name(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn integer(number: i32) -> Vec<u8> {
    [b"J", &number.to_le_bytes()[..]].concat()
}

fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &parts.concat()[..], b"t"].concat()
}

fn integers(numbers: &[i32]) -> Vec<u8> {
    tuple(&numbers.iter().map(|number| integer(*number)).collect::<Vec<_>>())
}

/// A dict with one tensor named `t`, a view of a storage `0` of so many numbers.
fn one(class: &str, elements: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let storage = tuple(&[
        text("storage"),
        name("torch", class),
        text("0"),
        text("cpu"),
        integer(elements),
    ]);
    let arguments = tuple(&[
        [&storage[..], b"Q"].concat(),
        integer(offset),
        integers(shape),
        integers(strides),
        b"\x89".to_vec(),
        [&name("collections", "OrderedDict")[..], b")R"].concat(),
    ]);
    let tensor = [&name("torch._utils", "_rebuild_tensor_v2")[..], &arguments, b"R"].concat();
    [b"\x80\x02}", &text("t")[..], &tensor, b"s."].concat()
}

fn with_storage(program: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[
        ("m/data.pkl", program),
        ("m/byteorder", b"little"),
        ("m/data/0", storage),
    ])
}

#[test]
fn numbers_are_those_that_torch_has_saved() {
    let expected: Value = serde_json::from_slice(&saved("values.json")).unwrap();
    let folder = folder(saved("whole.bin"));
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.format(), "PyTorch");
    let mut names: Vec<&str> = expected.as_object().unwrap().keys().map(String::as_str).collect();
    for name in &names {
        let numbers = |key: &str| {
            expected[name][key]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_f64().unwrap())
        };
        let shape: Vec<usize> = numbers("shape").map(|size| size as usize).collect();
        let values: Vec<f32> = numbers("values").map(|value| value as f32).collect();
        assert_eq!(checkpoint.values(name, &shape).unwrap(), values, "{name}");
        for length in [1, 5, 100] {
            let mut read = Vec::new();
            let mut visit = |piece: &mut [f32]| {
                read.extend_from_slice(piece);
                Ok(())
            };
            checkpoint.pieces(name, length, &mut visit).unwrap();
            assert_eq!(read, values, "{name}, {length}");
        }
    }
    // Integers are no weights.
    assert!(
        checkpoint
            .values("integers", &[3])
            .unwrap_err()
            .to_string()
            .contains("I64")
    );
    names.push("integers");
    names.sort_unstable();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), names);
    let module = Checkpoint::open(self::folder(saved("module.bin")).path());
    assert_eq!(module.unwrap().names().collect::<Vec<_>>(), ["bias", "weight"]);
}

#[test]
fn nothing_that_a_file_names_is_run() {
    let says = &["pytorch_model.bin", "nothing of it was run", "safe_serialization=True"];
    let found = error(saved("command.bin"));
    assert_says(&found, says);
    assert!(found.contains("posix.system") || found.contains("nt.system"), "{found}");
    for (module, function) in [
        ("builtins", "eval"),
        ("os", "system"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("collections", "OrderedDict.fromkeys"),
    ] {
        let program = [b"\x80\x02", &name(module, function)[..], b")R."].concat();
        assert_says(&error(with_storage(&program, &[])), says);
        let by_stack = [b"\x80\x04", &text(module)[..], &text(function), b"\x93)R."].concat();
        assert_says(&error(with_storage(&by_stack, &[])), says);
    }
    for instruction in [b'i', b'o', b'P', 0x81, 0x92, 0x82, 0x97, 0xff, b'S', b'F'] {
        let program = [b'\x80', 2, instruction];
        assert_says(
            &error(with_storage(&program, &[])),
            &["instruction", "pytorch_model.bin"],
        );
    }
}

#[test]
fn the_old_form_is_refused_with_a_command() {
    let says = &["torch before 1.6", "from_pretrained", "safe_serialization=True"];
    assert_says(&error(saved("old.bin")), says);
}

#[test]
fn views_stay_within_their_storage() {
    let numbers: Vec<u8> = (0..6).flat_map(|n| (n as f32).to_le_bytes()).collect();
    let read = |offset, shape: &[i32], strides: &[i32]| {
        let folder = folder(with_storage(&one("FloatStorage", 6, offset, shape, strides), &numbers));
        let checkpoint = Checkpoint::open(folder.path()).map_err(|error| error.to_string())?;
        let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
        checkpoint.values("t", &shape).map_err(|error| error.to_string())
    };
    assert_eq!(read(1, &[2, 2], &[2, 1]), Ok(vec![1.0, 2.0, 3.0, 4.0]));
    assert_eq!(read(0, &[2, 3], &[1, 2]), Ok(vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0]));
    assert_eq!(read(5, &[1], &[77]), Ok(vec![5.0]));
    assert_eq!(read(6, &[0, 3], &[3, 1]), Ok(Vec::new()));
    for (offset, shape, strides) in [
        (1, &[6][..], &[1][..]),
        (6, &[1], &[1]),
        (0, &[2], &[6]),
        (0, &[2, 4], &[0, 1]),
        (0, &[i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0]),
        (0, &[2], &[i32::MAX]),
        (-1, &[1], &[1]),
        (0, &[-1], &[1]),
        (0, &[2], &[-1]),
        (0, &[2, 1], &[1]),
        (0, &[1; 9], &[1; 9]),
    ] {
        let found = read(offset, shape, strides).unwrap_err();
        assert_says(&found, &["pytorch_model.bin", "safe_serialization"]);
    }
    for elements in [5, 7, -1] {
        let program = one("FloatStorage", elements, 0, &[2], &[1]);
        assert_says(&error(with_storage(&program, &numbers)), &["storage"]);
    }
    let other = one("HalfStorage", 6, 0, &[2], &[1]);
    assert_says(&error(with_storage(&other, &numbers)), &["6 numbers in 24 bytes"]);
}

#[test]
fn what_is_no_dict_of_tensors_is_refused() {
    let nested = [b"\x80\x02}", &text("state_dict")[..], b"}s."].concat();
    let twice = [b"\x80\x02}(", &text("t")[..], b"K\x01", &text("t"), b"K\x02u."].concat();
    for (program, says) in [
        (&b""[..], "middle of an instruction"),
        (b"\x80\x02", "middle of an instruction"),
        (b"\x80\x02.", "not there"),
        (b"\x80\x01}.", "protocol 1"),
        (b"\x80\x02].", "no dict"),
        (b"\x80\x02}K\x01K\x02s.", "no name"),
        (&nested, "\"state_dict\" is no tensor"),
        (&twice, "\"t\" is"),
        (b"\x80\x02K\x01)R.", "no function"),
        (b"\x80\x02K\x01Nb.", "that has none"),
        (b"\x80\x02t.", "mark"),
        (b"\x80\x02h\x05.", "not remembered"),
        (b"\x80\x02X\xff\xff\xff\xff", "middle of an instruction"),
    ] {
        assert_says(&error(with_storage(program, &[])), &[says]);
    }
    // Nested as deep as a file is long, and dropped again.
    let deep = [b"\x80\x02)", &vec![0x85; 1 << 20][..], b"."].concat();
    assert_says(&error(with_storage(&deep, &[])), &["no dict"]);
    let wide = [b"\x80\x02", &vec![b']'; (1 << 21) + 1][..], b"."].concat();
    assert_says(&error(with_storage(&wide, &[])), &["more than 2097152 values"]);
    let marks = [b"\x80\x02", &vec![b'('; 1 << 20][..], b"."].concat();
    assert_says(&error(with_storage(&marks, &[])), &["marks"]);
}

#[test]
fn archives_that_lie() {
    let program = one("FloatStorage", 1, 0, &[1], &[1]);
    let whole = with_storage(&program, &[0; 4]);
    Checkpoint::open(folder(&whole).path()).unwrap();
    for length in 0..whole.len() {
        assert_says(&error(&whole[..length]), &["pytorch_model.bin"]);
    }
    let end = whole.len() - 22;
    let change = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        error(file)
    };
    assert_says(&change(end + 10, &[0xff, 0xff]), &["announces 65535 files"]);
    assert_says(&change(end + 12, &[0xff; 4]), &["list of"]);
    assert_says(&change(end + 16, &[0xff; 4]), &["beyond"]);
    let list = u32::from_le_bytes(whole[end + 16..end + 20].try_into().unwrap()) as usize;
    assert_says(&change(list + 8, &[1]), &["encrypted"]);
    assert_says(&change(list + 10, &[8]), &["compressed"]);
    assert_says(&change(list + 42, &[1]), &["not where the list has it"]);
    assert_says(&change(list + 20, &[0, 0, 1, 0, 0, 0, 1, 0]), &[]);
    assert_says(&change(list + 20, &[0xff; 8]), &["size", "missing"]);
    let big = archive(&[("m/data.pkl", &program), ("m/byteorder", b"big"), ("m/data/0", &[0; 4])]);
    assert_says(&error(big), &["big-endian"]);
    assert_says(&error(archive(&[("m/data.pkl", &program)])), &["m/data/0", "missing"]);
    assert_says(&error(archive(&[("m/x", &program)])), &["data.pkl"]);
    assert_says(
        &error(archive(&[("m/data.pkl", &program), ("n/data.pkl", &program)])),
        &["data.pkl"],
    );
    assert_says(
        &error(archive(&[("m/data.pkl", &program), ("m/data.pkl", &program)])),
        &["twice"],
    );
}

/// A whole model in two files that an index lists.
#[test]
fn a_model_in_shards() {
    let model = Model::valid();
    let folder = Folder::empty();
    folder.put("config.json", Value::Object(model.config.clone()).to_string());
    let (mut map, mut files) = (serde_json::Map::new(), [Vec::new(), Vec::new()]);
    for (index, tensor) in model.tensors.iter().enumerate() {
        let file = format!("pytorch_model-0000{}-of-00002.bin", index % 2 + 1);
        map.insert(tensor.name.clone(), json!(file));
        files[index % 2].push(tensor);
    }
    for (index, tensors) in files.iter().enumerate() {
        let (mut program, mut parts) = (b"\x80\x02}".to_vec(), Vec::new());
        for (key, tensor) in tensors.iter().enumerate() {
            let shape: Vec<i32> = tensor.shape.iter().map(|size| *size as i32).collect();
            let strides = if let [_, columns] = shape[..] {
                vec![columns, 1]
            } else {
                vec![1]
            };
            let elements = shape.iter().product();
            let single = one("FloatStorage", elements, 0, &shape, &strides);
            // The entry alone, with a name and a storage of its own.
            let entry = &single[3 + text("t").len()..single.len() - 1];
            let own = [text(&tensor.name), replaced(entry, &text("0"), &text(&key.to_string()))].concat();
            program.extend(own);
            parts.push((format!("m/data/{key}"), tensor.bytes.clone()));
        }
        program.push(b'.');
        let mut all = vec![("m/data.pkl", &program[..])];
        all.extend(parts.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])));
        folder.put(&format!("pytorch_model-0000{}-of-00002.bin", index + 1), archive(&all));
    }
    folder.put("pytorch_model.bin.index.json", json!({"weight_map": map}).to_string());
    read_everything(folder.path()).unwrap();
    let (checkpoint, original) = (Checkpoint::open(folder.path()).unwrap(), model.save());
    let original = Checkpoint::open(original.path()).unwrap();
    for name in original.names() {
        let shape = original.shape(name).unwrap();
        assert_eq!(
            checkpoint.values(name, shape).unwrap(),
            original.values(name, shape).unwrap(),
            "{name}"
        );
    }
    // The safetensors beside them count.
    folder.put("model.safetensors", crate::fixture::safetensors(&model.tensors));
    assert_eq!(Checkpoint::open(folder.path()).unwrap().format(), "safetensors");
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn damage_anywhere(places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut file = saved("whole.bin");
        for (place, byte) in places {
            let at = place.index(file.len());
            file[at] = byte;
        }
        let folder = folder(file);
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            for name in checkpoint.names() {
                let _ = checkpoint.pieces(name, 7, &mut |_| Ok(()));
            }
        }
    }

    #[test]
    fn any_program(program in prop::collection::vec(any::<u8>(), 0..300)) {
        let file = with_storage(&[b"\x80\x02", &program[..]].concat(), &[0; 64]);
        let _ = Checkpoint::open(folder(file).path());
    }
}
