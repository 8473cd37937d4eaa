//! tokenizer.json as llama.cpp's vocabulary.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use transmla_core::checkpoint::{GgufValue, model_file, read_regular};
use transmla_core::{CheckpointError, ModelConfig};

use crate::spec::error::ConvertError;

/// Most bytes of a tokenizer.json.
const LARGEST: u64 = 128 << 20;

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The keys of the tokenizer in a model folder.
pub(super) fn keys(
    folder: &Path,
    config: &ModelConfig,
    pre_tokenizer: Option<&str>,
) -> Result<Vec<(String, GgufValue)>, ConvertError> {
    let path = folder.join("tokenizer.json");
    let text = match model_file(folder, "tokenizer.json", LARGEST)? {
        Some(text) => text,
        // To say that it is missing.
        None => read_regular(&path, LARGEST)?,
    };
    let tokenizer: Value = serde_json::from_slice(&text).map_err(|e| CheckpointError::Json {
        path,
        problem: e.to_string(),
    })?;
    vocabulary(&tokenizer, config, pre_tokenizer)
}

fn vocabulary(
    tokenizer: &Value,
    config: &ModelConfig,
    pre_tokenizer: Option<&str>,
) -> Result<Vec<(String, GgufValue)>, ConvertError> {
    let refuse = |problem: &str| ConvertError::Gguf {
        problem: format!("tokenizer.json: {problem}"),
    };
    let model = &tokenizer["model"];
    let entries = model["vocab"].as_object().filter(|_| model["type"] == "BPE");
    let entries = entries.ok_or_else(|| refuse("not byte pair encoding, the only kind that is written"))?;
    let size = config.vocab_size;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; size];
    let unknown = model["unk_token"].as_str();
    let byte_fallback = model["byte_fallback"] == true;
    for (token, id) in entries {
        let kind = match token {
            token if Some(token.as_str()) == unknown => UNKNOWN,
            token if byte_fallback && is_byte(token) => BYTE,
            _ => NORMAL,
        };
        let slot = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
        *slot.ok_or_else(|| refuse("a token's id is outside the vocabulary"))? = Some((token.clone(), kind));
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let slot = added["id"].as_u64().and_then(|id| tokens.get_mut(id as usize));
        if let (Some(slot), Some(content)) = (slot, added["content"].as_str()) {
            let kind = match (Some(content) == unknown, added["special"] == true) {
                (true, _) => UNKNOWN,
                (false, true) => CONTROL,
                (false, false) => USER_DEFINED,
            };
            *slot = Some((content.to_owned(), kind));
        }
    }
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .unzip();
    let merges = merges(&model["merges"]).ok_or_else(|| refuse("its merges are neither pairs nor words"))?;
    let mut keys = Vec::new();
    let mut add = |key: &str, value: GgufValue| keys.push((format!("tokenizer.ggml.{key}"), value));
    if byte_fallback {
        // What SentencePiece calls BPE: of all pairs the one whose union has the best score is merged first.
        add("model", GgufValue::Text("llama".into()));
        add("pre", GgufValue::Text("default".into()));
        add("scores", GgufValue::Floats(scores(&texts, &merges)));
        let prepends = tokenizer["normalizer"].to_string().contains("\"Prepend\"");
        add("add_space_prefix", GgufValue::Bool(prepends));
    } else {
        let pre = pre_tokenizer.or_else(|| known_pre_tokenizer(&tokenizer["pre_tokenizer"]));
        let pre = pre.ok_or_else(|| refuse("how it splits text is not known here; give llama.cpp's name for it"))?;
        add("model", GgufValue::Text("gpt2".into()));
        add("pre", GgufValue::Text(pre.to_owned()));
        let joined = merges.iter().map(|(left, right)| format!("{left} {right}"));
        add("merges", GgufValue::Texts(joined.collect()));
    }
    let id_of = |token: &str| texts.iter().position(|text| text == token);
    if let Some(id) = unknown.and_then(id_of) {
        add("unknown_token_id", GgufValue::U32(id as u32));
    }
    if let Some(id) = config.bos_token_id {
        add("bos_token_id", GgufValue::U32(id));
    }
    if let Some(id) = config.eos_token_ids.first() {
        add("eos_token_id", GgufValue::U32(*id));
    }
    let begins = tokenizer["post_processor"].to_string();
    add("add_bos_token", GgufValue::Bool(begins.contains("SpecialToken")));
    add("tokens", GgufValue::Texts(texts));
    add("token_type", GgufValue::Ints(kinds));
    Ok(keys)
}

fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Merges as pairs; older files have them as two words in one text.
fn merges(value: &Value) -> Option<Vec<(String, String)>> {
    let pair = |merge: &Value| match merge {
        Value::String(words) => {
            let (left, right) = words.split_once(' ')?;
            Some((left.to_owned(), right.to_owned()))
        }
        Value::Array(pair) => Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    value.as_array()?.iter().map(pair).collect()
}

/// The earlier a token is merged, the better its score; what no merge makes comes last.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let score = |token: &String| -(ranks.get(token).copied().unwrap_or(merges.len()) as f32);
    tokens.iter().map(score).collect()
}

/// llama.cpp's name for the way of splitting, of those tokenizers whose models have a stock form.
fn known_pre_tokenizer(pre_tokenizer: &Value) -> Option<&'static str> {
    let parts = pre_tokenizer["pretokenizers"].as_array()?;
    let digits = |part: &Value| part["type"] == "Digits" && part["individual_digits"] == true;
    if parts.iter().any(digits) {
        return Some("smollm");
    }
    let pattern = parts.iter().find_map(|part| part["pattern"]["Regex"].as_str())?;
    pattern.contains(r"\p{N}{1,3}").then_some("llama-bpe")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> ModelConfig {
        let raw = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 6, "bos_token_id": 1, "eos_token_id": [2, 3],
        });
        ModelConfig::from_json(raw.as_object().cloned().unwrap()).unwrap()
    }

    fn value(keys: &[(String, GgufValue)], key: &str) -> GgufValue {
        let name = format!("tokenizer.ggml.{key}");
        keys.iter().find(|(key, _)| *key == name).unwrap().1.clone()
    }

    #[test]
    fn merged_tokens_are_scored_by_their_rank() {
        let tokenizer = json!({
            "model": {
                "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "<0x0A>": 2, "a": 3, "ab": 4, "aab": 5}, "merges": ["a b", ["a", "ab"]],
            },
            "added_tokens": [{"id": 1, "content": "<s>", "special": true}],
        });
        let keys = vocabulary(&tokenizer, &config(), None).unwrap();
        assert_eq!(
            value(&keys, "scores"),
            GgufValue::Floats(vec![-2.0, -2.0, -2.0, -2.0, 0.0, -1.0])
        );
        let kinds = vec![UNKNOWN, CONTROL, BYTE, NORMAL, NORMAL, NORMAL];
        assert_eq!(value(&keys, "token_type"), GgufValue::Ints(kinds));
        assert_eq!(value(&keys, "eos_token_id"), GgufValue::U32(2));
        assert_eq!(value(&keys, "add_bos_token"), GgufValue::Bool(false));
    }

    #[test]
    fn how_text_is_split_must_be_known() {
        let tokenizer = json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}});
        let error = vocabulary(&tokenizer, &config(), None).unwrap_err().to_string();
        assert!(error.contains("splits text"), "{error}");
        let keys = vocabulary(&tokenizer, &config(), Some("gpt-2")).unwrap();
        assert_eq!(value(&keys, "pre"), GgufValue::Text("gpt-2".into()));
        let unigram = json!({"model": {"type": "Unigram", "vocab": []}});
        assert!(vocabulary(&unigram, &config(), None).is_err());
    }
}
