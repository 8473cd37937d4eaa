//! Texts in every form that people have them in.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use transmla_calib::{CalibError, DatasetSource, ReadOptions, Split, TextRows, load_with};
use transmla_checkpoint::hub::HubOptions;

use crate::load_path;

const ROWS: [&str; 2] = ["One “naïve” story.", "Two café stories."];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn utf_16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    ["\u{feff}", text].concat().encode_utf16().flat_map(order).collect()
}

fn windows_1252(text: &str) -> Vec<u8> {
    let byte = |c: char| match c {
        '“' => 0x93,
        '”' => 0x94,
        c => u8::try_from(u32::from(c)).unwrap(),
    };
    text.chars().map(byte).collect()
}

/// A parquet file with these columns of strings, in the order of the schema.
fn parquet(schema: &str, columns: &[&[&str]], levels: Option<(i16, &[i16])>, compression: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(text) = column.untyped() else {
            unreachable!()
        };
        let values: Vec<ByteArray> = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
        let defined = levels.map(|(level, _)| vec![level; values.len()]);
        text.write_batch(&values, defined.as_deref(), levels.map(|(_, repeated)| repeated))
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.finish().unwrap();
    writer.inner().clone()
}

fn in_folder<T>(files: &[(&str, Vec<u8>)], look: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    look(folder.path())
}

fn read(name: &str, bytes: Vec<u8>) -> Result<TextRows, CalibError> {
    in_folder(&[(name, bytes)], |folder| load_path(&folder.join(name), Split::Train))
}

fn read_column(name: &str, bytes: Vec<u8>, column: &str) -> Result<TextRows, CalibError> {
    in_folder(&[(name, bytes)], |folder| {
        let options = ReadOptions {
            column: Some(column),
            ..ReadOptions::default()
        };
        load_with(
            &DatasetSource::Path(folder.join(name)),
            Split::Train,
            &options,
            &HubOptions::default(),
        )
    })
}

#[test]
fn the_same_rows_from_every_form() {
    let plain = ROWS.join("\n\n");
    let lines = ROWS
        .map(|row| format!("{}\n", serde_json::json!({"text": row, "id": 1})))
        .concat();
    let array = serde_json::json!([{"text": ROWS[0]}, {"text": ROWS[1]}]).to_string();
    let object =
        serde_json::to_string_pretty(&serde_json::json!({"data": [{"text": ROWS[0]}, {"text": ROWS[1]}]})).unwrap();
    let flat = "message schema { REQUIRED BYTE_ARRAY text (STRING); }";
    let table = |compression| parquet(flat, &[&ROWS], None, compression);
    let level = ZstdLevel::try_new(3).unwrap();
    for (name, bytes) in [
        ("a.txt", plain.clone().into_bytes()),
        ("a.text", ["\u{feff}", &plain].concat().into_bytes()),
        ("a.md", plain.replace('\n', "\r\n").into_bytes()),
        ("wiki.train.raw", plain.replace("\n\n", "\n \n").into_bytes()),
        ("utf16le.txt", utf_16(&plain, u16::to_le_bytes)),
        ("utf16be.txt", utf_16(&plain, u16::to_be_bytes)),
        ("powershell.txt", utf_16(&plain.replace('\n', "\r\n"), u16::to_le_bytes)),
        ("latin1.txt", windows_1252(&plain)),
        ("by line.txt", ROWS.join("\n").into_bytes()),
        ("a.txt.gz", gzip(plain.as_bytes())),
        ("A.TXT.GZ", gzip(plain.as_bytes())),
        ("a.txt.zst", zstd(plain.as_bytes())),
        ("no gz in its name.txt", gzip(plain.as_bytes())),
        ("a.jsonl", lines.clone().into_bytes()),
        ("a.ndjson", utf_16(&lines, u16::to_le_bytes)),
        ("train.JSONL.gz", gzip(lines.as_bytes())),
        ("train.JSONL.GZ", gzip(lines.as_bytes())),
        ("a.jsonl.zst", zstd(lines.as_bytes())),
        (
            "a.json.zst",
            [zstd(&lines.as_bytes()[..10]), zstd(&lines.as_bytes()[10..])].concat(),
        ),
        ("a.json", array.into_bytes()),
        ("object.json", object.into_bytes()),
        ("a, b:2.txt", plain.clone().into_bytes()),
        ("a.parquet", table(Compression::UNCOMPRESSED)),
        ("snappy.parquet", table(Compression::SNAPPY)),
        ("A.PARQUET", table(Compression::ZSTD(level))),
        ("brotli.parquet", table(Compression::BROTLI(Default::default()))),
        ("gzip.parquet", table(Compression::GZIP(Default::default()))),
        ("lz4.parquet", table(Compression::LZ4_RAW)),
    ] {
        let found = read(name, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.rows, ROWS, "{name}");
    }
}

#[test]
fn what_was_guessed_is_told() {
    let origin = |name: &str, bytes: Vec<u8>| read(name, bytes).unwrap().origin;
    assert!(origin("a.txt", windows_1252("café\n\nnaïve")).contains("read as windows-1252, paragraphs"));
    assert!(origin("a.txt", utf_16("one\ntwo", u16::to_le_bytes)).contains("read as UTF-16, lines"));
    assert!(origin("a.json", b"{\"rows\": [\n{\"text\": \"one\"}]}".to_vec()).contains("list rows, column text"));
}

#[test]
fn nested_columns_of_parquet() {
    let inside = "message schema { REQUIRED GROUP data { REQUIRED BYTE_ARRAY text (STRING); REQUIRED BYTE_ARRAY url (STRING); } }";
    let struct_table = || parquet(inside, &[&ROWS, &["u", "v"]], None, Compression::SNAPPY);
    let found = read("a.parquet", struct_table()).unwrap();
    assert_eq!(found.rows, ROWS);
    assert!(found.origin.contains("column data.text"), "{}", found.origin);
    assert_eq!(
        read_column("a.parquet", struct_table(), "data.url").unwrap().rows,
        ["u", "v"]
    );

    let chats = "message schema { REQUIRED GROUP messages (LIST) { REPEATED GROUP list { REQUIRED GROUP element {
        REQUIRED BYTE_ARRAY content (STRING); REQUIRED BYTE_ARRAY role (STRING); } } } }";
    let (contents, roles) = (["Hi", "Ho", "What?"], ["user", "assistant", "user"]);
    let table = parquet(
        chats,
        &[&contents, &roles],
        Some((1, &[0, 1, 0])),
        Compression::ZSTD(Default::default()),
    );
    assert_eq!(
        read("a.parquet", table).unwrap().rows,
        ["user: Hi\nassistant: Ho", "user: What?"]
    );

    let strings = "message schema { REQUIRED GROUP words (LIST) { REPEATED GROUP list { REQUIRED BYTE_ARRAY element (STRING); } } }";
    let table = || parquet(strings, &[&["a", "b", "c"]], Some((1, &[0, 1, 0])), Compression::SNAPPY);
    assert_eq!(read_column("a.parquet", table(), "words").unwrap().rows, ["a\nb", "c"]);
    let error = read("a.parquet", table()).unwrap_err().to_string();
    assert!(
        error.contains("words (list of strings)") && error.contains("column = NAME"),
        "{error}"
    );
}

#[test]
fn every_encoding_of_parquet() {
    use parquet::basic::Encoding;
    use parquet::file::properties::WriterVersion;
    let rows: Vec<String> = (0..1000)
        .map(|i| format!("row {} {}", i * 37 % 101, "word ".repeat(i % 7)))
        .collect();
    let encodings = [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(Encoding::DELTA_BYTE_ARRAY),
    ];
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in encodings {
            let properties = WriterProperties::builder()
                .set_writer_version(version)
                .set_data_page_row_count_limit(300)
                .set_write_batch_size(100)
                .set_compression(Compression::ZSTD(Default::default()))
                .set_dictionary_enabled(encoding.is_none());
            let properties = match encoding {
                Some(encoding) => properties.set_encoding(encoding),
                None => properties,
            };
            let schema = Arc::new(parse_message_type("message schema { OPTIONAL BYTE_ARRAY text (STRING); }").unwrap());
            let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let ColumnWriter::ByteArrayColumnWriter(text) = column.untyped() else {
                unreachable!()
            };
            let values: Vec<ByteArray> = rows.iter().map(|row| row.as_bytes().to_vec().into()).collect();
            text.write_batch(&values, Some(&vec![1; rows.len()]), None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            writer.finish().unwrap();
            let found = read("a.parquet", writer.inner().clone());
            assert_eq!(
                found
                    .unwrap_or_else(|error| panic!("{version:?} {encoding:?}: {error}"))
                    .rows,
                rows
            );
        }
    }
}

#[test]
fn two_columns_of_strings() {
    let schema = "message schema { REQUIRED BYTE_ARRAY instruction (STRING); REQUIRED BYTE_ARRAY output (STRING); }";
    let table = || parquet(schema, &[&["p", "q"], &ROWS], None, Compression::SNAPPY);
    let error = read("a.parquet", table()).unwrap_err().to_string();
    let parts = ["instruction (BYTE_ARRAY), output (BYTE_ARRAY)", "column = NAME"];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    assert_eq!(read_column("a.parquet", table(), "output").unwrap().rows, ROWS);
    let lines = b"{\"instruction\": \"p\", \"output\": \"done\"}\n".to_vec();
    assert_eq!(read_column("a.jsonl", lines, "output").unwrap().rows, ["done"]);
}

#[test]
fn folders_without_split_names() {
    let part = |text: &str| format!("{}\n", serde_json::json!({"text": text})).into_bytes();
    let files = [
        ("part-1.jsonl", part("two")),
        ("part-0.jsonl", part("one")),
        ("README.md", b"# Data".to_vec()),
    ];
    let (train, test) = in_folder(&files, |folder| {
        (load_path(folder, Split::Train), load_path(folder, Split::Test))
    });
    assert_eq!(train.unwrap().rows, ["one", "two"]);
    assert!(test.unwrap_err().to_string().contains("no test split"));
    let wiki = ["wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"].map(|name| (name, name.as_bytes().to_vec()));
    in_folder(&wiki, |folder| {
        for (split, name) in [(Split::Train, 0), (Split::Validation, 1), (Split::Test, 2)] {
            assert_eq!(load_path(folder, split).unwrap().rows, [wiki[name].0]);
        }
    });
}

#[test]
fn what_is_not_read_says_what_to_do() {
    let head = |bytes: &[u8]| [bytes, &[0; 100]].concat();
    for (name, bytes, words) in [
        ("a.jsonl.xz", head(b"\xfd7zXZ\0"), ["xz", "unpack"]),
        ("a.txt.bz2", head(b"BZh9"), ["bz2", "unpack"]),
        ("a.zip", head(b"PK\x03\x04"), ["zip", "unpack"]),
        ("zip in disguise.txt", head(b"PK\x03\x04"), ["zip compression", "unzip"]),
        ("xz in disguise.jsonl", head(b"\xfd7zXZ\0"), ["xz compression", "xz -d"]),
        (
            "bzip2 in disguise.json",
            head(b"BZh9"),
            ["bzip2 compression", "bzip2 -d"],
        ),
        ("a.csv", b"text\nOnce".to_vec(), ["table", "to_parquet"]),
        ("data.arrow", b"ARROW1".to_vec(), ["table", "to_parquet"]),
        ("a.gz", gzip(b"Once"), ["a file of this name", ".jsonl"]),
        ("a.txt.gz", b"Once upon a time".to_vec(), ["no gzip file", "download"]),
        (
            "a.jsonl.zst",
            b"Once upon a time".to_vec(),
            ["no zstd file", "download"],
        ),
    ] {
        let error = read(name, bytes).unwrap_err().to_string();
        assert!(
            words.iter().chain([&name]).all(|word| error.contains(word)),
            "{name}: {error}"
        );
    }
}

#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("train.txt");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let device = folder.path().join("device.jsonl");
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    let table = folder.path().join("device.parquet");
    std::os::unix::fs::symlink("/dev/zero", &table).unwrap();
    for (path, kind) in [(&pipe, "a pipe"), (&device, "a device"), (&table, "a device")] {
        let error = load_path(path, Split::Train).unwrap_err();
        assert!(matches!(error, CalibError::NotAFile { .. }), "{error}");
        assert!(
            error.to_string().contains(kind) && error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    // In a folder too, where it is named after the split.
    std::fs::remove_file(&table).unwrap();
    let error = load_path(folder.path(), Split::Train).unwrap_err();
    assert!(error.to_string().contains("train.txt is a pipe"), "{error}");
    // A link to a regular file is one.
    let (file, link) = (folder.path().join("file.txt"), folder.path().join("link.txt"));
    std::fs::write(&file, "Once.").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(load_path(&link, Split::Train).unwrap().rows, ["Once."]);
}

#[test]
fn a_bomb_is_an_error_with_its_limit() {
    // A hundred MiB of one record, and of one line that never ends.
    let record = [b"{\"text\": \"".to_vec(), vec![b'x'; 100 << 20]].concat();
    for (name, bytes) in [("a.jsonl.gz", gzip(&record)), ("a.json.zst", zstd(&record))] {
        let error = read(name, bytes).unwrap_err();
        assert!(matches!(error, CalibError::TooLong { .. }), "{error}");
        assert!(
            error.to_string().contains("16 MiB") && error.to_string().contains(name),
            "{error}"
        );
    }
    let line = read("a.txt.gz", gzip(&vec![b'x'; 20 << 20])).unwrap();
    assert!(line.rows.iter().all(|row| row.len() <= 1 << 20) && line.rows.len() > 19);
    assert!(line.origin.contains("cut at white space"), "{}", line.origin);
}
