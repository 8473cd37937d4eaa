//! The files of a model folder that hold chat templates.

use std::path::Path;

use serde_json::Value as Json;
use transmla_checkpoint::checkpoint::{model_file, read_regular_text};

use crate::error::CalibError;

/// Most bytes of a file with a template.
const LARGEST_FILE: u64 = 4 << 20;

/// Most templates beside the one for plain chats that are read from a folder of them.
const MOST_TEMPLATES: usize = 64;

/// The name of the template for plain chats.
pub const DEFAULT_TEMPLATE: &str = "default";

/// A chat template as a model folder has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTemplate {
    /// `default` for plain chats; other names are for tools, retrieval and the like.
    pub name: String,
    /// Jinja.
    pub source: String,
    /// The file that it is from.
    pub file: String,
}

/// The chat templates of a model folder: those of `chat_template.jinja` and `additional_chat_templates/NAME.jinja`, else of
/// `chat_template.json`, else of the key `chat_template` of `tokenizer_config.json`, a string or a list of named ones.
///
/// # Errors
/// Files that cannot be read or are no JSON; a `chat_template` that is neither a string nor a list of templates.
pub fn chat_templates(folder: &Path) -> Result<Vec<NamedTemplate>, CalibError> {
    templates_of(folder, json_of(folder, "tokenizer_config.json")?.as_ref())
}

/// As [`chat_templates`], with tokenizer_config.json read already.
pub(super) fn templates_of(folder: &Path, config: Option<&Json>) -> Result<Vec<NamedTemplate>, CalibError> {
    let jinja = folder.join("chat_template.jinja");
    if let Some(source) = text_of(folder, "chat_template.jinja")? {
        let default = NamedTemplate {
            name: DEFAULT_TEMPLATE.into(),
            source,
            file: jinja.display().to_string(),
        };
        let mut templates = vec![default];
        templates.extend(additional(folder)?);
        return Ok(templates);
    }
    let older = json_of(folder, "chat_template.json")?;
    for (name, json) in [
        ("chat_template.json", older.as_ref()),
        ("tokenizer_config.json", config),
    ] {
        let file = folder.join(name).display().to_string();
        match json.and_then(|json| json.get("chat_template")) {
            None | Some(Json::Null) => {}
            Some(Json::String(source)) => {
                let (name, source) = (DEFAULT_TEMPLATE.into(), source.clone());
                return Ok(vec![NamedTemplate { name, source, file }]);
            }
            Some(Json::Array(entries)) => {
                let templates = named(entries, &file);
                return match templates.is_empty() {
                    true => Err(CalibError::unusable_template(
                        file,
                        "no template is named default; found: none",
                    )),
                    false => Ok(templates),
                };
            }
            Some(_) => {
                return Err(CalibError::unusable_template(
                    file,
                    "chat_template is neither a string nor a list of named templates",
                ));
            }
        }
    }
    Ok(Vec::new())
}

/// Those of a list of named ones.
fn named(entries: &[Json], file: &str) -> Vec<NamedTemplate> {
    let text = |entry: &Json, key: &str| entry.get(key).and_then(Json::as_str).map(str::to_owned);
    let template = |entry: &Json| {
        Some(NamedTemplate {
            name: text(entry, "name")?,
            source: text(entry, "template")?,
            file: file.to_owned(),
        })
    };
    entries.iter().filter_map(template).collect()
}

/// Those of the folder `additional_chat_templates`, by name.
fn additional(folder: &Path) -> Result<Vec<NamedTemplate>, CalibError> {
    let entries = std::fs::read_dir(folder.join("additional_chat_templates"));
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "jinja"))
        .collect();
    paths.sort();
    let named = paths.iter().take(MOST_TEMPLATES).filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some((name, path))
    });
    named
        .map(|(name, path)| {
            Ok(NamedTemplate {
                name,
                source: read_regular_text(path, LARGEST_FILE)?,
                file: path.display().to_string(),
            })
        })
        .collect()
}

/// A JSON file of the folder, if it is there.
pub(super) fn json_of(folder: &Path, name: &str) -> Result<Option<Json>, CalibError> {
    let Some(text) = text_of(folder, name)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let file = folder.join(name);
        CalibError::chat_template(file.display().to_string(), error.to_string(), error)
    })
}

/// A text in UTF-8 that goes with the model, if it is there.
fn text_of(folder: &Path, name: &str) -> Result<Option<String>, CalibError> {
    let Some(bytes) = model_file(folder, name, LARGEST_FILE)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes);
    text.map(Some)
        .map_err(|error| CalibError::unusable_template(folder.join(name).display().to_string(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &Path) -> Vec<(String, String)> {
        let templates = chat_templates(folder).unwrap().into_iter();
        templates.map(|template| (template.name, template.source)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = expected.iter().map(|(name, source)| ((*name).into(), (*source).into()));
        owned.collect()
    }

    #[test]
    fn the_newest_place_counts() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        assert_eq!(found(place.path()), []);
        write("tokenizer_config.json", r#"{"chat_template": "one"}"#);
        assert_eq!(found(place.path()), pairs(&[("default", "one")]));
        let list = r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}, {}]}"#;
        write("tokenizer_config.json", list);
        assert_eq!(found(place.path()), pairs(&[("rag", "r"), ("default", "d")]));
        write("chat_template.json", r#"{"chat_template": "two"}"#);
        assert_eq!(found(place.path()), pairs(&[("default", "two")]));
        write("chat_template.jinja", "three");
        std::fs::create_dir(place.path().join("additional_chat_templates")).unwrap();
        write("additional_chat_templates/tool_use.jinja", "t");
        write("additional_chat_templates/notes.txt", "n");
        assert_eq!(found(place.path()), pairs(&[("default", "three"), ("tool_use", "t")]));
    }
}
