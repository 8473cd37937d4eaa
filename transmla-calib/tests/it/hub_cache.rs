//! Named datasets from a cache laid out as the hub's clients lay it out, with the network switched off.

use std::io::Write;
use std::path::Path;

use transmla_calib::{CalibError, DatasetSource, Split, TextRows, load};
use transmla_checkpoint::hub::HubOptions;

use crate::write_parquet;

struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Enters a file of a repository into the cache; `write` writes it.
    fn add(&self, repo: &str, revision: &str, file: &str, write: impl Fn(&Path)) {
        let root = self.0.path().join(format!("datasets--{}", repo.replace('/', "--")));
        let reference = root.join("refs").join(revision);
        let path = root.join("snapshots/abc123").join(file);
        for file in [&reference, &path] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        std::fs::write(reference, "abc123").unwrap();
        write(&path);
    }

    fn load(&self, source: DatasetSource, split: Split) -> Result<TextRows, CalibError> {
        let options = HubOptions {
            cache: Some(self.0.path().to_path_buf()),
            offline: true,
            ..HubOptions::default()
        };
        load(&source, split, &options)
    }
}

fn parquet(column: &'static str, row: &'static str) -> impl Fn(&Path) {
    move |path| write_parquet(path, column, "(STRING)", &[Some(row.as_bytes()), Some(b"")])
}

fn zipped_lines(row: &'static str) -> impl Fn(&Path) {
    move |path| {
        let file = std::fs::File::create(path).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        writeln!(encoder, "{{\"text\": \"{row}\", \"timestamp\": \"t\", \"url\": \"u\"}}").unwrap();
        encoder.finish().unwrap();
    }
}

#[test]
fn wikitext() {
    let cache = Cache::new();
    let error = cache
        .load(DatasetSource::Wikitext2, Split::Test)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Salesforce/wikitext") && error.contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    let file = "wikitext-2-raw-v1/test-00000-of-00001.parquet";
    // An old cache has it under its former id.
    cache.add("wikitext", "main", file, parquet("text", "former"));
    assert_eq!(
        cache.load(DatasetSource::Wikitext2, Split::Test).unwrap().rows,
        ["former", ""]
    );
    cache.add("Salesforce/wikitext", "main", file, parquet("text", "today"));
    let text = cache.load(DatasetSource::Wikitext2, Split::Test).unwrap();
    assert_eq!((text.rows[0].as_str(), text.split), ("today", Some(Split::Test)));
    assert!(
        text.origin
            .ends_with("test-00000-of-00001.parquet, column text, test split"),
        "{}",
        text.origin
    );
    let error = cache.load(DatasetSource::Wikitext2, Split::Train).unwrap_err();
    assert!(matches!(error, CalibError::NoSplit { .. }), "{error}");
}

#[test]
fn penn_treebank() {
    let cache = Cache::new();
    for (split, row) in [
        ("test", "no it was n't black monday"),
        ("validation", "consumers may want to"),
    ] {
        let file = format!("penn_treebank/{split}/0000.parquet");
        cache.add(
            "ptb-text-only/ptb_text_only",
            "refs/convert/parquet",
            &file,
            parquet("sentence", row),
        );
    }
    let text = cache.load(DatasetSource::Ptb, Split::Test).unwrap();
    assert_eq!(text.rows[0], "no it was n't black monday");
    assert!(text.origin.ends_with("column sentence, test split"), "{}", text.origin);
    let text = cache.load(DatasetSource::Ptb, Split::Train).unwrap();
    assert!(
        text.origin.ends_with("validation split (there is no train split)"),
        "{}",
        text.origin
    );
}

#[test]
fn c4() {
    let cache = Cache::new();
    cache.add(
        "allenai/c4",
        "main",
        "en/c4-validation.00000-of-00008.json.gz",
        zipped_lines("held out"),
    );
    for split in [Split::Validation, Split::Test] {
        let text = cache.load(DatasetSource::C4, split).unwrap();
        assert_eq!(
            (text.rows, text.split),
            (vec!["held out".to_owned()], Some(Split::Validation))
        );
        assert_eq!(text.origin.contains("c4 has no test split"), split == Split::Test);
    }
    let error = cache.load(DatasetSource::C4, Split::Train).unwrap_err().to_string();
    assert!(error.contains("c4-train.00000-of-01024.json.gz is missing"), "{error}");
    cache.add(
        "allenai/c4",
        "main",
        "en/c4-train.00000-of-01024.json.gz",
        zipped_lines("to fit on"),
    );
    assert_eq!(cache.load(DatasetSource::C4, Split::Train).unwrap().rows, ["to fit on"]);
}

#[test]
fn alpaca() {
    let cache = Cache::new();
    let rows: Vec<String> = (0..40).map(|i| format!("instruction {i}")).collect();
    cache.add(
        "tatsu-lab/alpaca",
        "main",
        "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
        |path| {
            let rows: Vec<Option<&[u8]>> = rows.iter().map(|row| Some(row.as_bytes())).collect();
            write_parquet(path, "text", "(STRING)", &rows);
        },
    );
    let part = |split| cache.load(DatasetSource::Alpaca, split).unwrap();
    let (train, validation, test) = (part(Split::Train), part(Split::Validation), part(Split::Test));
    assert_eq!((train.rows.len(), validation.rows.len(), test.rows.len()), (32, 4, 4));
    assert!(
        test.origin.ends_with("test part of a shuffle cut 80/10/10"),
        "{}",
        test.origin
    );
    let mut all = [train.rows, validation.rows, test.rows].concat();
    let mut expected = rows;
    all.sort();
    expected.sort();
    assert_eq!(all, expected);
}
