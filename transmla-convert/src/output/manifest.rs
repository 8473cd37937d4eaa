//! Which files of a folder a conversion has written, by the list in its `transmla.toml`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use transmla_core::checkpoint::{CheckpointWriter, Place, is_companion, read_regular, read_regular_text};
use transmla_core::{CheckpointError, CoreError};

use crate::spec::engine::GGUF_FILE;
use crate::spec::error::ConvertError;

/// The recipe, and the list of all other files.
pub const RECIPE_FILE: &str = "transmla.toml";

/// Files that every conversion may write beside the source's companions.
const WRITTEN: [&str; 8] = [
    RECIPE_FILE,
    GGUF_FILE,
    "README.md",
    "config.json",
    "configuration_transmla.py",
    "modeling_transmla.py",
    "model.safetensors",
    "model.safetensors.index.json",
];

/// Most names that an error lists.
const NAMED: usize = 5;

/// Most bytes of a `transmla.toml`, which has some tens of options and one line for each file.
pub const LARGEST_RECIPE: u64 = 1 << 20;

/// Most bytes of a config.json; those of the largest models have some tens of KiB.
const LARGEST_CONFIG: u64 = 16 << 20;

/// `[files]` of a `transmla.toml`: bytes by name.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) files: BTreeMap<String, u64>,
}

/// Adds the list of all files that are in the writer's folder to the recipe there, or writes it alone if there is none.
pub(crate) fn list_files(writer: &CheckpointWriter) -> Result<(), ConvertError> {
    let folder = writer.work_folder();
    let mut files = BTreeMap::new();
    add_files(folder, "", &mut files)?;
    files.remove(RECIPE_FILE);
    let recipe = folder.join(RECIPE_FILE);
    let mut text = match recipe.is_file() {
        true => read_regular_text(&recipe, LARGEST_RECIPE)?,
        false => "# The files of this model; `transmla convert --force` replaces these and no others.\n".to_owned(),
    };
    // A table at the end stands for itself, whatever is before it.
    let list = toml::to_string(&Manifest { files }).map_err(ConvertError::encode(RECIPE_FILE))?;
    text.push_str(&format!("\n{list}"));
    writer.write_file(RECIPE_FILE, text.as_bytes())?;
    Ok(())
}

/// Adds the files of a folder and of those below it, each with its path and its bytes.
fn add_files(folder: &Path, path: &str, files: &mut BTreeMap<String, u64>) -> Result<(), CoreError> {
    let failed = |error| CoreError::io("list", folder, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = format!("{path}{}", entry.file_name().to_string_lossy());
        let data = entry.metadata().map_err(failed)?;
        match data.is_dir() {
            true => add_files(&entry.path(), &format!("{name}/"), files)?,
            false => drop(files.insert(name, data.len())),
        }
    }
    Ok(())
}

/// Checks that a folder, if there is one, is empty or holds nothing but what a conversion has written, unchanged in size.
///
/// # Errors
/// [`ConvertError::NotOurs`] with the first few names of what it holds besides.
pub fn check_replaceable(save_path: &Path) -> Result<(), ConvertError> {
    // Where it will be written, which is not where the system looks if a path leads out of a folder that is not there.
    let place = Place::of(save_path)?;
    let save_path = place.target();
    if save_path.symlink_metadata().is_err() {
        return Ok(());
    }
    let refuse = |problem: String| {
        Err(ConvertError::NotOurs {
            folder: save_path.to_path_buf(),
            problem,
        })
    };
    if !save_path.is_dir() {
        return refuse("it is no folder".into());
    }
    let names = place.contents()?;
    if names.is_empty() {
        return Ok(());
    }
    let text = match read_regular_text(&save_path.join(RECIPE_FILE), LARGEST_RECIPE) {
        Ok(text) => text,
        Err(CheckpointError::File { problem, .. }) => {
            return refuse(format!("its {RECIPE_FILE} cannot be read: {problem}"));
        }
        Err(_) => {
            let all = names.iter().map(|name| name.to_string_lossy().into_owned());
            return refuse(format!(
                "it has no {RECIPE_FILE} of a conversion, but {}",
                few(all.collect())
            ));
        }
    };
    let strangers: Vec<String> = match toml::from_str::<Manifest>(&text) {
        Ok(manifest) => {
            let named = |name: &OsString| name.to_string_lossy().into_owned();
            let mut strangers = Vec::new();
            for name in names.iter().map(named) {
                manifest.add_strangers(save_path, name, &mut strangers);
            }
            strangers
        }
        // As versions wrote it that listed no files.
        Err(_) if is_converted(save_path) => {
            let known = |name: &&OsString| is_written_name(name) && save_path.join(name).is_file();
            let strange = names.iter().filter(|name| !known(name));
            strange.map(|name| name.to_string_lossy().into_owned()).collect()
        }
        Err(_) => {
            let all = names.iter().map(|name| name.to_string_lossy().into_owned());
            return refuse(format!(
                "its {RECIPE_FILE} lists no files and its config.json is not that of a converted model; it has {}",
                few(all.collect())
            ));
        }
    };
    match strangers.is_empty() {
        true => Ok(()),
        false => refuse(format!("it also has {}", few(strangers))),
    }
}

impl Manifest {
    /// Says which entries of a folder, and of listed folders below it, are not the listed files.
    fn add_strangers(&self, folder: &Path, name: String, strangers: &mut Vec<String>) {
        let path = folder.join(&name);
        let Ok(data) = fs::symlink_metadata(&path) else { return };
        let inside = format!("{name}/");
        let is_listed_folder = data.is_dir() && self.files.keys().any(|file| file.starts_with(&inside));
        match (self.files.get(&name), fs::read_dir(&path)) {
            _ if name == RECIPE_FILE => {}
            (_, Ok(entries)) if is_listed_folder => entries.flatten().for_each(|entry| {
                let name = format!("{inside}{}", entry.file_name().to_string_lossy());
                self.add_strangers(folder, name, strangers);
            }),
            (Some(bytes), _) if data.is_file() && *bytes == data.len() => {}
            (Some(bytes), _) if data.is_file() => {
                strangers.push(format!("{name} (of {} bytes now, {bytes} were written)", data.len()));
            }
            _ => strangers.push(name),
        }
    }
}

fn is_converted(folder: &Path) -> bool {
    let config = read_regular(&folder.join("config.json"), LARGEST_CONFIG).ok();
    let config: Option<serde_json::Value> = config.and_then(|text| serde_json::from_slice(&text).ok());
    config.is_some_and(|config| config.get("kv_lora_rank").is_some())
}

fn is_written_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_shard = || {
        let numbers = name.strip_prefix("model-")?.strip_suffix(".safetensors")?;
        let (index, count) = numbers.split_once("-of-")?;
        [index, count]
            .iter()
            .all(|number| number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit()))
            .then_some(())
    };
    WRITTEN.contains(&name) || is_companion(name) || is_shard().is_some()
}

fn few(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let mut text = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, each of its name's length; `transmla.toml` and `config.json` have contents of their own.
    fn problem(recipe: Option<&str>, names: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            match name.strip_suffix('/') {
                Some(name) => fs::create_dir(folder.path().join(name)).unwrap(),
                None => fs::write(folder.path().join(name), name).unwrap(),
            }
        }
        if let Some(recipe) = recipe {
            fs::write(folder.path().join(RECIPE_FILE), recipe).unwrap();
            fs::write(folder.path().join("config.json"), r#"{"kv_lora_rank": 3}"#).unwrap();
        }
        check_replaceable(folder.path()).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn only_what_was_written_is_replaced() {
        let listed = "model-path = 'm'\n[files]\n'config.json' = 19\n'a.bin' = 5\n'src' = 3\n'templates/a' = 11\n";
        for (recipe, names, words) in [
            (None, &[][..], &[][..]),
            (
                None,
                &["config.json", "model.safetensors"],
                &["no transmla.toml", "config.json, model.safetensors"],
            ),
            (
                None,
                &["1", "2", "3", "4", "5", "6", "7"],
                &["1, 2, 3, 4, 5 and 2 more"],
            ),
            (Some(listed), &[], &[]),
            (Some(listed), &["a.bin"], &[]),
            (Some(listed), &["a.bin", "b.bin"], &["also has b.bin;"]),
            (Some(listed), &["src/"], &["also has src;"]),
            (Some(listed), &["templates/", "templates/a"], &[]),
            (Some(listed), &["templates/", "templates/b"], &["also has templates/b;"]),
            (
                Some(listed),
                &["templates/", "templates/a/"],
                &["also has templates/a;"],
            ),
            (
                Some("[files]\n'config.json' = 18"),
                &[],
                &["config.json (of 19 bytes now, 18 were written)"],
            ),
            // Older folders have no list.
            (
                Some("model-path = 'm'"),
                &["model.safetensors", "tokenizer.json", "README.md"],
                &[],
            ),
            (
                Some("model-path = 'm'"),
                &["model-00001-of-00002.safetensors", "model.gguf"],
                &[],
            ),
            (Some("model-path = 'm'"), &["optimizer.pt"], &["optimizer.pt"]),
            (
                Some("model-path = 'm'"),
                &["model-1-of-2.safetensors"],
                &["model-1-of-2"],
            ),
            (Some("model-path = 'm'"), &["tokenizer.json/"], &["tokenizer.json"]),
        ] {
            let found = problem(recipe, names);
            assert_eq!(found.is_empty(), words.is_empty(), "{names:?}: {found}");
            for word in words {
                assert!(found.contains(word), "{names:?}: {found}");
            }
        }
    }

    #[test]
    fn a_recipe_beside_somebody_elses_model_makes_it_no_conversion() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RECIPE_FILE), "model-path = 'm'").unwrap();
        fs::write(folder.path().join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
        let error = check_replaceable(folder.path()).unwrap_err().to_string();
        assert!(error.contains("not that of a converted model"), "{error}");
        let file = folder.path().join("config.json");
        assert!(check_replaceable(&file).unwrap_err().to_string().contains("no folder"));
        check_replaceable(&folder.path().join("new")).unwrap();
    }
}
