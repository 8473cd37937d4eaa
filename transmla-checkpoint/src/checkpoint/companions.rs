//! What goes with a model's weights, as files of a folder: tokenizer, generation settings, licence, card.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::companion_names::{CARD, TEMPLATES, is_companion, is_terms};
use super::model_file::files_of;
use super::origin::forget_origin;
use super::regular::{NotRegular, check_regular, read_regular};
use crate::error::CheckpointError;
use crate::gguf;
use crate::repository::cached_repo;

/// Maximum size in bytes of one; tokenizers of 256 thousand words have about 35 MB.
const LARGEST: u64 = 128 << 20;

/// Maximum size in bytes of a card that are read.
const LARGEST_CARD: u64 = 1 << 20;

/// Files whose keys are looked through; the others are lists of words, where any key may be one.
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "generation_config.json"];

/// The files of a model folder that go with its weights.
#[derive(Debug, Clone, Default)]
pub struct Companions {
    /// The files, by name; the model card is not among them.
    pub files: Vec<Companion>,
    /// Licences, notices and cards that cannot be taken along, each with the reason.
    pub left_out: Vec<(String, String)>,
    card: Option<Card>,
}

/// A model card.
#[derive(Debug, Clone)]
enum Card {
    File(PathBuf),
    /// Made of what a GGUF file says.
    Made(String),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// Its name in the folder, with `/` if it lies in a folder below.
    pub name: String,
    source: Source,
    /// Whether there is a `tokenizer.json` beside it.
    with_tokenizer: bool,
}

/// Where a file's contents are from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    /// Made of a GGUF file's keys.
    Made(Vec<u8>),
}

impl Companions {
    /// Finds them in a folder, or in the keys of a GGUF file and beside it.
    ///
    /// Links are followed where they stay in the folder or, in a hub cache, lead to the blobs there.
    ///
    /// # Errors
    /// The folder cannot be listed; a file that the model is not the same without is no regular file, leads elsewhere, or
    /// is larger than 128 MiB.
    pub fn of(model: &Path) -> Result<Self, CheckpointError> {
        let first = gguf::locate(model)?;
        let folder = &files_of(model, first.as_deref());
        let mut names = list(folder, "")?;
        if folder.join(TEMPLATES).is_dir() {
            names.extend(list(&folder.join(TEMPLATES), &format!("{TEMPLATES}/"))?);
        }
        names.sort();
        let roots = roots(folder);
        let with_tokenizer = names.iter().any(|name| name == "tokenizer.json");
        let mut found = Self::default();
        for name in names {
            let path = folder.join(&name);
            match check(&path, &roots) {
                Ok(()) if name == CARD => found.card = Some(Card::File(path)),
                Ok(()) => found.files.push(Companion {
                    name,
                    source: Source::File(path),
                    with_tokenizer,
                }),
                Err(problem) if name == CARD || is_terms(&name) => {
                    found.left_out.push((name, problem.to_string()));
                }
                Err(problem) => {
                    let problem = problem.to_string();
                    return Err(CheckpointError::File { path, problem });
                }
            }
        }
        if let Some(first) = first {
            found.add_made(&first)?;
        }
        Ok(found)
    }

    /// Adds what a GGUF file's keys amount to and no file says.
    fn add_made(&mut self, first: &Path) -> Result<(), CheckpointError> {
        for name in gguf::MADE {
            let known = |name: &str| self.files.iter().any(|file| file.name == name);
            if known(name) {
                continue;
            }
            match gguf::companion(first, name) {
                Ok(contents) => self.files.extend(contents.map(|contents| Companion {
                    name: name.into(),
                    source: Source::Made(contents),
                    with_tokenizer: false,
                })),
                // A model may be used by token ids alone.
                Err(CheckpointError::File { problem, .. }) => self.left_out.push((name.into(), problem)),
                Err(other) => return Err(other),
            }
        }
        self.files.sort_by(|one, other| one.name.cmp(&other.name));
        if self.card.is_none() {
            self.card = gguf::card(first)?.map(Card::Made);
        }
        Ok(())
    }

    /// The text of the model card, truncated if it is very long.
    pub fn card(&self) -> Option<String> {
        let path = match self.card.as_ref()? {
            Card::File(path) => path,
            Card::Made(text) => return Some(text.clone()),
        };
        let mut text = Vec::new();
        let file = File::open(path).ok()?;
        file.take(LARGEST_CARD).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Companion {
    /// Its contents, without keys that name the model's former location (`_name_or_path`) or code that is not copied
    /// (`auto_map`).
    ///
    /// # Errors
    /// It cannot be read, or a settings file is not JSON.
    pub fn contents(&self) -> Result<Vec<u8>, CheckpointError> {
        let path = match &self.source {
            Source::File(path) => path,
            Source::Made(contents) => return Ok(contents.clone()),
        };
        let text = read_regular(path, LARGEST)?;
        if !SETTINGS.contains(&self.name.as_str()) {
            return Ok(text);
        }
        let json = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        let mut settings: Value = serde_json::from_slice(json).map_err(|error| CheckpointError::Json {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        let before = settings.clone();
        forget_origin(&mut settings);
        if settings == before {
            return Ok(text);
        }
        let own_code = before
            .get("auto_map")
            .and_then(|map| map.get("AutoTokenizer"))
            .is_some();
        if let (true, true, Some(map)) = (own_code, self.with_tokenizer, settings.as_object_mut()) {
            // The class was in the code; what tokenizer.json says does not depend on it.
            map.insert("tokenizer_class".into(), Value::from("PreTrainedTokenizerFast"));
        }
        Ok(format!("{settings:#}\n").into_bytes())
    }
}

fn list(folder: &Path, prefix: &str) -> Result<Vec<String>, CheckpointError> {
    let failed = |error| CheckpointError::io("list", folder, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_str().map(|name| format!("{prefix}{name}"));
        names.extend(name.filter(|name| is_companion(name)));
    }
    Ok(names)
}

/// Folders that links may lead to: this one, and in a hub cache its contents.
fn roots(folder: &Path) -> Vec<PathBuf> {
    let Ok(folder) = folder.canonicalize() else {
        return Vec::new();
    };
    let mut roots = vec![folder.clone()];
    if cached_repo(&folder).is_some_and(|repo| repo.commit.is_some()) {
        // Of the repository, and those that repositories share.
        let above = folder.ancestors().skip(2).take(2);
        roots.extend(above.filter_map(|above| above.join("blobs").canonicalize().ok()));
    }
    roots
}

/// Why a file is not copied.
enum Obstacle {
    /// A link that leads nowhere, or a file that cannot be read.
    Unreadable,
    /// A link out of the folder.
    Outside,
    /// No regular file of a bounded size.
    NotRegular(NotRegular),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => f.write_str("it is a link that leads nowhere, or cannot be read"),
            Self::Outside => f.write_str(
                "it is a link that leads out of the model's folder; copy the file there if it belongs to the model",
            ),
            Self::NotRegular(problem) => problem.fmt(f),
        }
    }
}

fn check(path: &Path, roots: &[PathBuf]) -> Result<(), Obstacle> {
    // Any folder on the way may be a link too.
    let target = path.canonicalize().map_err(|_| Obstacle::Unreadable)?;
    if !roots.iter().any(|root| target.starts_with(root)) {
        return Err(Obstacle::Outside);
    }
    let data = fs::metadata(target).map_err(|_| Obstacle::Unreadable)?;
    check_regular(&data, LARGEST).map_err(Obstacle::NotRegular)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        folder
    }

    fn names(found: &Companions) -> Vec<&str> {
        found.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn they_are_found_and_other_files_are_not() {
        let folder = folder(&[
            ("README.md", "---\nlicense: mit\n---\n"),
            ("LICENSE", "free"),
            ("config.json", "{}"),
            ("additional_chat_templates/rag.jinja", "{{ x }}"),
            ("additional_chat_templates/notes.txt", "x"),
            ("merges.txt", "a b"),
            ("train.py", "x"),
        ]);
        let found = Companions::of(folder.path()).unwrap();
        assert_eq!(
            names(&found),
            ["LICENSE", "additional_chat_templates/rag.jinja", "merges.txt"]
        );
        assert_eq!(found.files[1].contents().unwrap(), b"{{ x }}");
        assert_eq!(found.card().as_deref(), Some("---\nlicense: mit\n---\n"));
        assert!(found.left_out.is_empty());
    }

    #[test]
    fn settings_forget_where_they_were() {
        let settings = json!({
            "auto_map": {"AutoTokenizer": ["tokenization_x.XTokenizer", null]},
            "_name_or_path": "/home/u/model",
            "tokenizer_class": "XTokenizer",
            "extra": [{"name_or_path": "/home/u/other", "kept": 1}],
        });
        let files = [
            ("tokenizer_config.json", settings.to_string()),
            ("tokenizer.json", "{}".into()),
        ];
        let folder = folder(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
        let found = Companions::of(folder.path()).unwrap();
        let text = found.files[1].contents().unwrap();
        let expected = json!({"tokenizer_class": "PreTrainedTokenizerFast", "extra": [{"kept": 1}]});
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
        // What has nothing to forget stays as it is, to the byte.
        let plain = "\u{feff}{ \"model_max_length\": 1000000000000000019884624838656 }";
        fs::write(folder.path().join("tokenizer_config.json"), plain).unwrap();
        assert_eq!(found.files[1].contents().unwrap(), plain.as_bytes());
        fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
        assert!(found.files[1].contents().is_err());
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let folder = folder(&[("file", "12345")]);
        let path = folder.path().join("file");
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert!(read_regular(&path, 4).is_err() && read_regular(folder.path(), 4).is_err());
        File::create(folder.path().join("LICENSE"))
            .unwrap()
            .set_len(LARGEST + 1)
            .unwrap();
        let found = Companions::of(folder.path()).unwrap();
        assert_eq!(
            found.left_out,
            [("LICENSE".to_owned(), "it is larger than 128 MiB".to_owned())]
        );
    }

    #[cfg(unix)]
    mod links {
        use std::os::unix::fs::symlink;

        use super::*;

        #[test]
        fn they_are_not_followed_out_of_the_folder() {
            let place = folder(&[("secret", "s"), ("model/terms", "t"), ("model/config.json", "{}")]);
            let model = place.path().join("model");
            for (name, target) in [
                ("LICENSE", "../secret"),
                ("COPYING", "/dev/zero"),
                ("NOTICE", "terms"),
                ("LICENSE.md", "nowhere"),
                ("README.md", "/etc/hostname"),
            ] {
                symlink(target, model.join(name)).unwrap();
            }
            let found = Companions::of(&model).unwrap();
            assert_eq!(names(&found), ["NOTICE"]);
            let left: Vec<&str> = found.left_out.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(left, ["COPYING", "LICENSE", "LICENSE.md", "README.md"]);
            assert_eq!(found.card(), None);
            // A tokenizer that is not the model's own is no matter of taste.
            symlink(place.path().join("secret"), model.join("tokenizer.json")).unwrap();
            let error = Companions::of(&model).unwrap_err().to_string();
            assert!(
                error.contains("tokenizer.json") && error.contains("copy the file"),
                "{error}"
            );
            // Nor are folders a way around.
            fs::remove_file(model.join("tokenizer.json")).unwrap();
            let outside = folder(&[("a.jinja", "s")]);
            symlink(outside.path(), model.join(TEMPLATES)).unwrap();
            assert!(Companions::of(&model).is_err());
        }

        #[test]
        fn in_a_hub_cache_they_lead_to_its_blobs() {
            let place = folder(&[
                ("models--org--name/blobs/1", "free"),
                ("blobs/ab/2", "{}"),
                ("other/blobs/3", "s"),
            ]);
            let snapshot = place.path().join("models--org--name/snapshots/abc");
            fs::create_dir_all(&snapshot).unwrap();
            symlink("../../blobs/1", snapshot.join("LICENSE")).unwrap();
            symlink("../../../blobs/ab/2", snapshot.join("tokenizer.json")).unwrap();
            symlink("../../../other/blobs/3", snapshot.join("NOTICE")).unwrap();
            let found = Companions::of(&snapshot).unwrap();
            assert_eq!(names(&found), ["LICENSE", "tokenizer.json"]);
            assert_eq!(found.left_out.len(), 1);
            // Under another name it is the same cache.
            symlink(&snapshot, place.path().join("latest")).unwrap();
            assert_eq!(
                names(&Companions::of(&place.path().join("latest")).unwrap()),
                names(&found)
            );
        }

        #[test]
        fn a_pipe_is_neither_opened_nor_taken() {
            let model = folder(&[("config.json", "{}")]);
            for name in ["README.md", "LICENSE"] {
                let made = std::process::Command::new("mkfifo")
                    .arg(model.path().join(name))
                    .status();
                assert!(made.unwrap().success());
            }
            let found = Companions::of(model.path()).unwrap();
            assert_eq!((found.files.len(), found.left_out.len()), (0, 2));
            assert!(read_regular(&model.path().join("LICENSE"), 10).is_err());
        }
    }
}
