//! Damaged and unsuitable files: errors that name the file, never panics.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use transmla_calib::{CalibError, DatasetSource, Split, TextTokenizer};

use crate::{load_path, models, write_parquet};

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn error_of(name: &str, bytes: &[u8]) -> CalibError {
    let folder = tempfile::tempdir().unwrap();
    let error = load_path(&write(folder.path(), name, bytes), Split::Test).unwrap_err();
    assert!(error.to_string().contains(name), "{error}");
    error
}

/// What is in a repository whose large files were not fetched.
#[test]
fn pointers_of_git_lfs() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    for name in ["a.txt", "a.jsonl", "a.parquet", "a.txt.gz"] {
        let error = error_of(name, pointer).to_string();
        assert!(error.contains("git lfs pull"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = write(folder.path(), "a.txt", b"version https://git-lfs is not a pointer\n");
    assert_eq!(load_path(&text, Split::Test).unwrap().rows.len(), 1);
}

#[test]
fn names_and_paths() {
    for (name, source) in [
        ("wikitext2", DatasetSource::Wikitext2),
        ("wikitext", DatasetSource::Wikitext2),
        ("ptb", DatasetSource::Ptb),
        ("c4", DatasetSource::C4),
        ("alpaca", DatasetSource::Alpaca),
    ] {
        assert_eq!(name.parse::<DatasetSource>().unwrap(), source);
        assert_eq!(source.to_string().parse::<DatasetSource>().unwrap(), source);
    }
    let folder = models().join("stories");
    let source: DatasetSource = folder.to_str().unwrap().parse().unwrap();
    assert_eq!(source, DatasetSource::Path(folder));
    let error = "wikitxt".parse::<DatasetSource>().unwrap_err().to_string();
    let expected = "'wikitxt' is neither one of wikitext2, ptb, c4, alpaca nor an existing file or folder";
    assert_eq!(error, expected);
}

#[test]
fn a_file_that_is_not_there() {
    let error = load_path(Path::new("/no/such/train.parquet"), Split::Train).unwrap_err();
    assert!(matches!(error, CalibError::Io { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/train.parquet"));
}

#[test]
fn a_single_file_serves_as_any_split() {
    let file = models().join("stories/validation-00000-of-00001.parquet");
    let text = load_path(&file, Split::Train).unwrap();
    assert_eq!(text.split, None);
    assert!(
        text.origin.ends_with("column text, the file as a whole"),
        "{}",
        text.origin
    );
}

#[test]
fn shards_are_joined_and_stand_ins_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |index: usize, rows: &[&str]| {
        let rows: Vec<Option<&[u8]>> = rows.iter().map(|row| Some(row.as_bytes())).collect();
        let path = folder
            .path()
            .join(format!("data/validation-{index:05}-of-00003.parquet"));
        write_parquet(&path, "sentence", "(STRING)", &rows);
    };
    shard(2, &["five"]);
    shard(0, &["one", "two"]);
    shard(1, &["three", "", "four"]);
    let text = load_path(folder.path(), Split::Train).unwrap();
    assert_eq!(text.rows, ["one", "two", "three", "", "four", "five"]);
    assert_eq!(text.split, Some(Split::Validation));
    assert!(
        text.origin
            .ends_with("(3 files), column sentence, validation split (there is no train split)"),
        "{}",
        text.origin
    );
}

#[test]
fn parquet_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write_parquet(&path, "story", "(STRING)", &[Some(b"one"), None, Some(b"three")]);
    assert_eq!(load_path(&path, Split::Test).unwrap().rows, ["one", "", "three"]);
    write_parquet(&path, "picture", "", &[Some(b"one")]);
    let error = load_path(&path, Split::Test).unwrap_err();
    assert!(matches!(error, CalibError::NoTextColumn { .. }));
    assert!(
        error.to_string().contains("label (INT32), picture (BYTE_ARRAY)"),
        "{error}"
    );
    write_parquet(&path, "text", "(STRING)", &[Some(b"fine"), Some(b"not \xff fine")]);
    let error = load_path(&path, Split::Test).unwrap_err().to_string();
    assert!(error.contains("row 2") && error.contains("utf-8"), "{error}");
}

#[test]
fn no_text() {
    assert!(matches!(error_of("a.txt", b""), CalibError::Empty { .. }));
    assert!(matches!(error_of("a.jsonl", b"\n"), CalibError::Empty { .. }));
    assert!(matches!(
        error_of("a.jsonl", b"{\"text\": \" \"}"),
        CalibError::Empty { .. }
    ));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    write_parquet(&path, "text", "(STRING)", &[]);
    let error = load_path(folder.path(), Split::Train).unwrap_err();
    assert!(
        matches!(error, CalibError::Empty { .. }) && error.to_string().contains("train.parquet"),
        "{error}"
    );
}

#[test]
fn not_what_the_name_says() {
    assert!(matches!(error_of("a.parquet", b""), CalibError::Corrupt { .. }));
    assert!(matches!(
        error_of("a.parquet", b"PAR1 nonsense PAR1"),
        CalibError::Corrupt { .. }
    ));
    assert!(matches!(
        error_of("a.jsonl", b"Once upon a time"),
        CalibError::Corrupt { .. }
    ));
    assert!(matches!(
        error_of("a.json.gz", b"Once upon a time"),
        CalibError::Corrupt { .. }
    ));
    assert!(matches!(error_of("a.txt", b"\xff\xfeO\0n"), CalibError::Corrupt { .. }));
    assert!(matches!(
        error_of("a.txt", b"PNG\x89\0\x01"),
        CalibError::Corrupt { .. }
    ));
    assert!(matches!(
        error_of("a.csv", b"text\nOnce"),
        CalibError::Unsupported { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damaged_parquet_never_panics(cut in 0.0..1.0_f64, flips in proptest::collection::vec((0.0..1.0_f64, 1_u8..), 0..6)) {
        let mut bytes = std::fs::read(models().join("stories/validation-00000-of-00001.parquet")).unwrap();
        // Half of the cases keep their length, so that the footer is found and read.
        if cut < 0.5 {
            bytes.truncate((bytes.len() as f64 * cut * 2.0) as usize);
        }
        let length = bytes.len();
        for (place, flip) in flips {
            // The footer is small; most damage should be there.
            let from_end = (place.powi(4) * length as f64) as usize;
            if let Some(byte) = length.checked_sub(1 + from_end).and_then(|index| bytes.get_mut(index)) {
                *byte ^= flip;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = load_path(&write(folder.path(), "a.parquet", &bytes), Split::Test) {
            prop_assert!(error.to_string().contains("a.parquet"), "{error}");
        }
    }
}

#[test]
fn folders_without_a_usable_tokenizer() {
    let error_of = |folder: &Path| TextTokenizer::from_folder(folder).unwrap_err().to_string();
    let folder = tempfile::tempdir().unwrap();
    assert!(error_of(&folder.path().join("absent")).contains("no such folder"));
    assert!(error_of(folder.path()).contains("missing; copy tokenizer.json"));
    write(folder.path(), "tokenizer.model", b"x");
    let error = error_of(folder.path());
    assert!(
        error.contains("only tokenizer.model") && error.contains("save_pretrained"),
        "{error}"
    );
    for bytes in [&b"{}"[..], b"", b"{\"model\": {\"type\": \"BPE\"}}", b"\xff\xfe"] {
        write(folder.path(), "tokenizer.json", bytes);
        let error = error_of(folder.path());
        assert!(error.contains("tokenizer.json: not a valid tokenizer file"), "{error}");
    }
}

#[test]
fn a_template_with_an_unknown_token() {
    let file = std::fs::read_to_string(models().join("stories260k/tokenizer.json")).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&file).unwrap();
    file["post_processor"]["special_tokens"] = serde_json::json!({});
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "tokenizer.json", file.to_string().as_bytes());
    let error = TextTokenizer::from_folder(folder.path()).unwrap_err();
    assert!(matches!(error, CalibError::Tokenizer { .. }), "{error}");
}

proptest! {
    #[test]
    fn damaged_tokenizers_never_panic(place in 0.0..1.0_f64, byte: Option<u8>) {
        let mut bytes = std::fs::read(models().join("stories260k/tokenizer.json")).unwrap();
        // All but the vocabulary is in the first fifth and in the first lines of the model.
        let place = (place * 0.25 * bytes.len() as f64) as usize;
        match byte {
            Some(byte) => bytes[place] = byte,
            None => bytes.truncate(place),
        }
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "tokenizer.json", &bytes);
        if let Ok(tokenizer) = TextTokenizer::from_folder(folder.path())
            && let Ok(ids) = tokenizer.encode("Once upon a time </s>", true)
        {
            let _ = tokenizer.decode(&ids, true);
        }
    }
}
