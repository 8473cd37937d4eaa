//! tokenizer.json and its settings from a file's keys.

mod byte_level;
mod pieces;
mod pre_tokenizers;
mod vocabulary;

use serde_json::{Map, Value, json};

use self::vocabulary::{Kind, Vocabulary, no_tokenizer};
use super::model::Model;
use crate::error::CheckpointError;

/// tokenizer.json of a model.
///
/// # Errors
/// Its tokenizer is of another kind than byte pair encoding, or not described whole.
pub(super) fn tokenizer(model: &Model) -> Result<Value, CheckpointError> {
    let vocabulary = Vocabulary::read(model)?;
    let (parts, begins) = match model.main().text("tokenizer.ggml.model") {
        Some("gpt2") => byte_level::parts(model, &vocabulary)?,
        Some("llama") => (pieces::parts(model, &vocabulary)?, true),
        other => {
            let found = other.map_or_else(|| "missing".to_owned(), |name| format!("{name:?}"));
            return Err(no_tokenizer(
                model,
                format!("tokenizer.ggml.model is {found}, and gpt2 and llama are known"),
            ));
        }
    };
    let added = vocabulary.entries().filter_map(|(content, id, kind)| {
        let special = match kind {
            Kind::Unknown | Kind::Control => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        }))
    });
    let mut out = Map::new();
    out.insert("version".into(), json!("1.0"));
    out.insert("truncation".into(), Value::Null);
    out.insert("padding".into(), Value::Null);
    out.insert("added_tokens".into(), added.collect());
    out.insert("post_processor".into(), around(model, &vocabulary, begins));
    out.extend(parts);
    Ok(Value::Object(out))
}

/// Special tokens around a text.
fn around(model: &Model, vocabulary: &Vocabulary, begins: bool) -> Value {
    let asked = |key: &str, usual: bool| model.main().flag(&format!("tokenizer.ggml.{key}")).unwrap_or(usual);
    let before = vocabulary
        .named(model, "bos")
        .filter(|_| asked("add_bos_token", begins));
    let after = vocabulary.named(model, "eos").filter(|_| asked("add_eos_token", false));
    if before.is_none() && after.is_none() {
        return Value::Null;
    }
    let special = |token: Option<(&str, u32)>, part: u8| {
        token.map(|(token, _)| json!({"SpecialToken": {"id": token, "type_id": part}}))
    };
    let one = |name: &str, part: u8| -> Vec<Value> {
        let text = Some(json!({"Sequence": {"id": name, "type_id": part}}));
        [special(before, part), text, special(after, part)]
            .into_iter()
            .flatten()
            .collect()
    };
    let tokens: Map<String, Value> = [before, after]
        .into_iter()
        .flatten()
        .map(|(token, id)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    let pair = [one("A", 0), one("B", 1)].concat();
    json!({"type": "TemplateProcessing", "single": one("A", 0), "pair": pair, "special_tokens": tokens})
}

/// tokenizer_config.json of a model: special tokens by their texts, and chat templates.
///
/// # Errors
/// The file cannot be read.
pub(super) fn settings(model: &Model) -> Result<Value, CheckpointError> {
    let header = model.main();
    let mut out = Map::new();
    out.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    if let Ok(vocabulary) = Vocabulary::read(model) {
        for (key, name) in [
            ("bos", "bos_token"),
            ("eos", "eos_token"),
            ("unknown", "unk_token"),
            ("padding", "pad_token"),
            ("mask", "mask_token"),
        ] {
            if let Some((token, _)) = vocabulary.named(model, key) {
                out.insert(name.into(), json!(token));
            }
        }
    }
    if let Some(context) = model.size("context_length")? {
        out.insert("model_max_length".into(), json!(context));
    }
    out.insert("clean_up_tokenization_spaces".into(), json!(false));
    if let Some(templates) = templates(model)? {
        out.insert("chat_template".into(), templates);
    }
    for flag in ["add_bos_token", "add_eos_token"] {
        if let Some(asked) = header.flag(&format!("tokenizer.ggml.{flag}")) {
            out.insert(flag.into(), json!(asked));
        }
    }
    Ok(Value::Object(out))
}

/// The chat template, or a list of named ones.
fn templates(model: &Model) -> Result<Option<Value>, CheckpointError> {
    const TEMPLATE: &str = "tokenizer.chat_template";
    let header = model.main();
    let default = header.text(TEMPLATE);
    let names = header.texts("tokenizer.chat_templates")?.unwrap_or_default();
    let named = names
        .iter()
        .filter_map(|name| Some((name.as_str(), header.text(&format!("{TEMPLATE}.{name}"))?)));
    let named: Vec<(&str, &str)> = named.collect();
    Ok(match (default, named.is_empty()) {
        (None, true) => None,
        (Some(default), true) => Some(json!(default)),
        (default, false) => {
            let all = default.map(|default| ("default", default)).into_iter().chain(named);
            Some(
                all.map(|(name, template)| json!({"name": name, "template": template}))
                    .collect(),
            )
        }
    })
}
