//! Models in GGUF files, as llama.cpp has them: read as if they were folders in hub layout.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `files` | which files a model consists of |
//! | `cursor`, `values`, `header` | a file's header, checked against the file |
//! | `architecture` | the table from ggml's architectures to families |
//! | `names`, `model` | tensors under Hugging Face's names |
//! | `config`, `rope` | keys as config.json |
//! | `tokenizer` | keys as tokenizer.json and its settings |
//!
//! The format is that of ggml's `docs/gguf.md`; layouts of tensors are those of llama.cpp's `convert_hf_to_gguf.py`. Files are
//! written by `checkpoint::gguf`.

mod architecture;
mod config;
mod cursor;
mod files;
mod header;
mod model;
mod names;
mod rope;
mod tokenizer;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use self::model::Model;
use crate::checkpoint::regular::is_there;
use crate::checkpoint::shard::Shard;
use crate::checkpoint::stored::Stored;
use crate::error::CheckpointError;

/// Files that go with a model's weights and that are made of a file's keys.
pub(crate) const MADE: [&str; 3] = ["generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// The (first) GGUF file that a model's path means: the path itself, or the only one of a folder without safetensors.
///
/// A folder whose config.json describes what the file alone does not, a converted model, is none.
///
/// # Errors
/// A folder has several.
pub(crate) fn locate(model: &Path) -> Result<Option<PathBuf>, CheckpointError> {
    let found = files::locate(model)?;
    let described = is_there(&model.join("config.json"));
    Ok(found.filter(|first| !(described && model::is_unsupported(first))))
}

/// Opened files, and the tensors in them under Hugging Face's names.
///
/// # Errors
/// A file is missing or damaged, or the architecture is not read.
pub(crate) fn open(first: &Path) -> Result<(Vec<Shard>, BTreeMap<String, Stored>), CheckpointError> {
    let model = Model::open(first)?;
    let tensors = model.tensors()?;
    Ok((model.into_shards(), tensors))
}

/// The keys of config.json that the file's own amount to.
///
/// # Errors
/// As [`open`]; the model has what no supported family has.
pub(crate) fn config(first: &Path) -> Result<Map<String, Value>, CheckpointError> {
    config::config(&Model::open(first)?)
}

/// The contents of one of the files [`MADE`].
///
/// # Errors
/// As [`open`]; no tokenizer can be made.
pub(crate) fn companion(first: &Path, name: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
    let model = || Model::open(first);
    let made = match name {
        "tokenizer.json" => tokenizer::tokenizer(&model()?)?,
        "tokenizer_config.json" => tokenizer::settings(&model()?)?,
        "generation_config.json" => {
            let config = config::config(&model()?)?;
            let ids = ["bos_token_id", "eos_token_id"].map(|key| (key.to_owned(), config[key].clone()));
            ids.into_iter().filter(|(_, id)| !id.is_null()).collect()
        }
        _ => return Ok(None),
    };
    // A map of a file's texts is always JSON.
    Ok(Some(made.to_string().into_bytes()))
}

/// What the file says of its licence and languages, as a model card has it; nothing if it says nothing.
///
/// # Errors
/// As [`open`].
pub(crate) fn card(first: &Path) -> Result<Option<String>, CheckpointError> {
    let model = Model::open(first)?;
    let header = model.main();
    let mut lines = String::new();
    let mut add = |key: &str, value: Value| lines += &format!("{key}: {value}\n");
    for (key, name) in [
        ("general.license", "license"),
        ("general.license.name", "license_name"),
        ("general.license.link", "license_link"),
    ] {
        if let Some(text) = header.text(key) {
            add(name, json!(text));
        }
    }
    if let Some(languages) = header.texts("general.languages")? {
        add("language", json!(languages));
    }
    Ok((!lines.is_empty()).then(|| format!("---\n{lines}---\n")))
}
