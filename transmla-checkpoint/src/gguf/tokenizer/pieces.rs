//! Byte pair encoding with scores, as SentencePiece has it (`tokenizer.ggml.model` = `llama`).
//!
//! SentencePiece merges the pair whose union has the best score. In tokenizer.json that is a list of merges: all pairs of tokens whose
//! union is a token, the best first, in the order that transformers gives them.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::super::model::Model;
use super::vocabulary::{Kind, Vocabulary, no_tokenizer};
use crate::error::CheckpointError;

/// Most bytes of a token that is looked at for merges.
const LONGEST: usize = 512;

/// The parts of tokenizer.json that depend on the kind of tokenizer.
pub(super) fn parts(model: &Model, vocabulary: &Vocabulary) -> Result<Map<String, Value>, CheckpointError> {
    let scores = model.main().numbers("tokenizer.ggml.scores")?;
    let scores = scores.filter(|scores| scores.len() == vocabulary.tokens.len());
    let scores = scores.ok_or_else(|| no_tokenizer(model, "the file has not one score for each token"))?;
    if scores.iter().any(|score| score.is_nan()) {
        return Err(no_tokenizer(model, "a score is no number"));
    }
    let ids = vocabulary.ids(model)?;
    let byte_fallback = vocabulary.kinds.contains(&Kind::Byte);
    let unknown = vocabulary.entries().find(|(_, _, kind)| *kind == Kind::Unknown);
    let unknown = vocabulary
        .named(model, "unknown")
        .map(|(token, _)| token)
        .or(unknown.map(|(token, ..)| token));
    let merges: Vec<Value> = merges(&ids, vocabulary, &scores)
        .into_iter()
        .map(|(left, right)| json!([left, right]))
        .collect();
    let vocab: Map<String, Value> = ids
        .into_iter()
        .map(|(token, id)| (token.to_owned(), json!(id)))
        .collect();
    let prefixed = model.main().flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let normalizer = match prefixed {
        true => {
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space]})
        }
        false => space,
    };
    let mut parts = Map::new();
    parts.insert("normalizer".into(), normalizer);
    parts.insert("pre_tokenizer".into(), Value::Null);
    parts.insert("decoder".into(), json!({"type": "Sequence", "decoders": decoders}));
    parts.insert(
        "model".into(),
        json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": byte_fallback, "ignore_merges": false, "vocab": vocab, "merges": merges,
        }),
    );
    Ok(parts)
}

/// All pairs of tokens whose union is a token, the best union first.
fn merges<'a>(ids: &HashMap<&'a str, u32>, vocabulary: &'a Vocabulary, scores: &[f64]) -> Vec<(&'a str, &'a str)> {
    struct Pair<'a> {
        left: &'a str,
        right: &'a str,
        score: f64,
        lengths: (usize, usize),
    }
    let mut all: Vec<Pair<'a>> = Vec::new();
    for (token, id, _) in vocabulary.entries().filter(|(token, ..)| token.len() <= LONGEST) {
        let first = all.len();
        let count = token.chars().count();
        for (before, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if ids.contains_key(left) && ids.contains_key(right) {
                all.push(Pair {
                    left,
                    right,
                    score: scores[id as usize],
                    lengths: (before, count - before),
                });
            }
        }
        all[first..].sort_by_key(|pair| (ids[pair.left], ids[pair.right]));
    }
    all.sort_by(|one, other| {
        let by_score = other.score.partial_cmp(&one.score).unwrap_or(Ordering::Equal);
        by_score.then_with(|| other.lengths.cmp(&one.lengths))
    });
    all.into_iter().map(|pair| (pair.left, pair.right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_union_comes_first() {
        let tokens = ["a", "b", "ab", "ba", "aba", "abab"].map(str::to_owned).to_vec();
        let vocabulary = Vocabulary {
            kinds: vec![Kind::Normal; tokens.len()],
            tokens,
        };
        let ids: HashMap<&str, u32> = vocabulary.entries().map(|(token, id, _)| (token, id)).collect();
        let found = merges(&ids, &vocabulary, &[0.0, 0.0, -3.0, -1.0, -2.0, -2.0]);
        assert_eq!(
            found,
            [
                ("b", "a"),
                ("aba", "b"),
                ("ab", "ab"),
                ("ab", "a"),
                ("a", "ba"),
                ("a", "b")
            ]
        );
    }
}
