//! Byte-level byte pair encoding (`tokenizer.ggml.model` = `gpt2`).

use serde_json::{Map, Value, json};

use super::super::model::Model;
use super::pre_tokenizers::{KNOWN, byte_level, of_name};
use super::vocabulary::{Vocabulary, no_tokenizer};
use crate::error::CheckpointError;

/// The parts of tokenizer.json that depend on the kind of tokenizer, and whether a text begins with BOS where no key says it.
pub(super) fn parts(model: &Model, vocabulary: &Vocabulary) -> Result<(Map<String, Value>, bool), CheckpointError> {
    let name = model.main().text("tokenizer.ggml.pre").unwrap_or("default");
    let splitting = of_name(name).ok_or_else(|| {
        no_tokenizer(
            model,
            format!("how it splits text is called {name:?}, and known are {KNOWN}"),
        )
    })?;
    let merges = model.main().texts("tokenizer.ggml.merges")?;
    let merges = merges.ok_or_else(|| no_tokenizer(model, "the file has no merges"))?;
    let pairs: Option<Vec<Value>> = merges.iter().map(|merge| pair(merge)).collect();
    let pairs = pairs.ok_or_else(|| no_tokenizer(model, "one of its merges is no pair of tokens"))?;
    let vocab: Map<String, Value> = vocabulary
        .ids(model)?
        .into_iter()
        .map(|(token, id)| (token.to_owned(), json!(id)))
        .collect();
    let mut parts = Map::new();
    parts.insert("normalizer".into(), splitting.normalizer);
    parts.insert("pre_tokenizer".into(), splitting.pre_tokenizer);
    parts.insert("decoder".into(), byte_level(true));
    parts.insert(
        "model".into(),
        json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": splitting.ignore_merges, "vocab": vocab, "merges": pairs,
        }),
    );
    Ok((parts, splitting.begins))
}

/// Two tokens with a space between them; the first may begin with one.
fn pair(merge: &str) -> Option<Value> {
    let second = merge.char_indices().nth(1)?.0;
    let between = second + merge.get(second..)?.find(' ')?;
    let (left, right) = (merge.get(..between)?, merge.get(between + 1..)?);
    (!right.is_empty()).then(|| json!([left, right]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_is_two_tokens() {
        assert_eq!(pair("Ġ t"), Some(json!(["Ġ", "t"])));
        assert_eq!(pair("  a"), Some(json!([" ", "a"])));
        for merge in ["", "a", "a ", "ab"] {
            assert_eq!(pair(merge), None, "{merge:?}");
        }
    }
}
