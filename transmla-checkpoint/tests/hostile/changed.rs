//! Files that change while they are read: an error that names the file, never a signal, and never numbers of two files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use transmla_checkpoint::{Checkpoint, CheckpointError};

use crate::fixture::{Folder, Model, assert_says};

const EMBEDDING: &str = "model.embed_tokens.weight";

type Change = fn(&Path);
type Read = fn(&Checkpoint) -> Result<(), CheckpointError>;

/// Ways in which other programs change a file, and what is said of each.
const CHANGES: [(&str, &str, Change); 6] = [
    ("cut short", "bytes", |file| set_length(file, 100)),
    ("emptied", "has 0;", |file| set_length(file, 0)),
    ("grown", "bytes", |file| {
        File::options()
            .append(true)
            .open(file)
            .unwrap()
            .write_all(b"more")
            .unwrap();
    }),
    ("overwritten with zeros", "written to", |file| {
        let length = fs::metadata(file).unwrap().len() as usize;
        fs::write(file, vec![0; length]).unwrap();
        later(file);
    }),
    ("replaced by a copy", "another file", |file| {
        let modified = fs::metadata(file).unwrap().modified().unwrap();
        let copy = file.with_extension("copy");
        fs::copy(file, &copy).unwrap();
        File::options()
            .write(true)
            .open(&copy)
            .unwrap()
            .set_modified(modified)
            .unwrap();
        fs::rename(copy, file).unwrap();
    }),
    ("removed", "no longer there", |file| fs::remove_file(file).unwrap()),
];

fn set_length(file: &Path, length: u64) {
    File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// Times of files are coarse: what is written in the same instant could not be told.
fn later(file: &Path) {
    let time = SystemTime::now() + Duration::from_secs(1);
    File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn weights(folder: &Folder) -> PathBuf {
    folder.file("model.safetensors")
}

#[test]
fn every_way_of_reading_tells() {
    let read: [(&str, Read); 5] = [
        ("values", |checkpoint| checkpoint.values(EMBEDDING, &[16, 8]).map(drop)),
        ("pieces", |checkpoint| checkpoint.pieces(EMBEDDING, 50, &mut |_| Ok(()))),
        ("rows", |checkpoint| {
            checkpoint.rows(EMBEDDING, [16, 8], [3, 1, 3].into_iter(), &mut Vec::new())
        }),
        ("bytes", |checkpoint| checkpoint.bytes(EMBEDDING, &mut |_| Ok(()))),
        ("fingerprint", |checkpoint| checkpoint.fingerprint().map(drop)),
    ];
    for (how, what, change) in CHANGES {
        for (name, read) in &read {
            let folder = Model::valid().save();
            let checkpoint = Checkpoint::open(folder.path()).unwrap();
            read(&checkpoint).unwrap();
            let unread = Checkpoint::open(folder.path()).unwrap();
            change(&weights(&folder));
            let error = read(&unread).expect_err(how);
            assert!(
                matches!(error, CheckpointError::Changed { .. }),
                "{how}, {name}: {error}"
            );
            assert_says(&error.to_string(), &["model.safetensors", "has changed", what, "again"]);
        }
    }
}

/// More than is read at once: a mapped file of this size would end the process where it is cut off.
#[test]
fn a_large_file_cut_short_is_an_error_too() {
    let mut model = Model::valid();
    model.add("large", &[3 << 20]);
    let folder = model.save();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.values("large", &[3 << 20]).unwrap().len(), 3 << 20);
    let mut seen = 0;
    let result = checkpoint.pieces("large", 1 << 20, &mut |piece| {
        seen += piece.len();
        set_length(&weights(&folder), 4 << 20);
        Ok(())
    });
    assert_eq!(seen, 1 << 20);
    assert_says(&result.unwrap_err().to_string(), &["has changed", "model.safetensors"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_checkpoint() {
    let folder = Model::valid().save();
    fs::remove_file(weights(&folder)).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(weights(&folder))
        .status()
        .unwrap();
    assert!(made.success());
    let error = Checkpoint::open_file(&weights(&folder)).unwrap_err().to_string();
    assert_says(&error, &["model.safetensors", "no regular file"]);
}

#[test]
fn fingerprints_tell_every_part() {
    let of = |model: &Model| Checkpoint::open(model.save().path()).unwrap().fingerprint();
    let base = of(&Model::valid()).unwrap();
    assert_eq!(of(&Model::valid()).unwrap(), base);
    let mut flipped = Model::valid();
    flipped.tensor(EMBEDDING).bytes[77] ^= 1;
    let mut turned = Model::valid();
    turned.tensor(EMBEDDING).shape = vec![8, 16];
    let mut renamed = Model::valid();
    renamed.tensor(EMBEDDING).name = "model.embed_tokens.weighs".into();
    let mut other = Model::valid();
    other.tensor(EMBEDDING).dtype = "I32";
    for (name, model) in [
        ("a flipped bit", flipped),
        ("a shape", turned),
        ("a name", renamed),
        ("a number format", other),
    ] {
        assert_ne!(of(&model).unwrap(), base, "{name}");
    }
}
